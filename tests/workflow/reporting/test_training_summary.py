"""What a training says of its folds."""

import re
from types import SimpleNamespace

import pytest

from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.workflow.reporting.training_summary import _table, fold_lines


@pytest.mark.parametrize(("pooled", "said"), [(0.93, False), (0.88, False), (0.73, True)])
def test_folds_that_rank_alike_on_different_scales_are_named_with_what_to_do(pooled, said):
    judgement = SimpleNamespace(fold_aurocs=(0.96, 0.98), evaluation={"auroc": SimpleNamespace(estimate=pooled)})
    lines = fold_lines(judgement)
    assert lines[0].startswith("AUROC within folds: mean 0.970 (0.960, 0.980); the model is all 2 networks")
    assert lines[1] == OUT_OF_FOLD
    assert any("costs the pooled AUROC 0.24" in line and "training.min_steps" in line for line in lines) == said


def test_without_folds_nothing_is_said_of_them():
    assert fold_lines(SimpleNamespace(fold_aurocs=())) == []


def test_the_table_goes_from_the_uncalibrated_to_the_calibrated():
    def evaluation(before, after):
        return SimpleNamespace(
            intervals={},
            uncalibrated=SimpleNamespace(brier_score=before, ece=before / 2),
            calibrated=SimpleNamespace(brier_score=after, ece=None),
            null=None,
            patients_unknown=False,
        )

    other = SimpleNamespace(name="diameter", evaluation=evaluation(0.3, 0.25), gain=None, read="diameter_mm")
    trained = SimpleNamespace(
        judgement=SimpleNamespace(evaluation=evaluation(0.2, 0.1), comparisons=(other,)),
        config=SimpleNamespace(data=SimpleNamespace(intensities="real"), network=SimpleNamespace(name="compact")),
    )
    text = _table(trained)
    (brier,) = [line for line in text.splitlines() if "Brier score, uncalibrated" in line]
    (ece,) = [line for line in text.splitlines() if "ECE, uncalibrated" in line]
    assert re.findall(r"\S+ to (?!cal)\S+", brier) == ["0.200 to 0.100", "0.300 to 0.250"]
    assert re.findall(r"\S+ to (?!cal)\S+", ece) == ["0.100 to undefined", "0.150 to undefined"]
