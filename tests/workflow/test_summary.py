"""What a training says of its folds."""

from types import SimpleNamespace

import pytest

from pipeline.workflow.summary import fold_lines


@pytest.mark.parametrize(("pooled", "said"), [(0.93, False), (0.88, False), (0.73, True)])
def test_folds_that_rank_alike_on_different_scales_are_named_with_what_to_do(pooled, said):
    judgement = SimpleNamespace(fold_aurocs=(0.96, 0.98), evaluation={"auroc": SimpleNamespace(estimate=pooled)})
    lines = fold_lines(judgement)
    assert lines[0].startswith("AUROC within folds: mean 0.970 (0.960, 0.980); the model is all 2 networks")
    assert any("costs the pooled AUROC 0.24" in line and "training.min_steps" in line for line in lines) == said


def test_without_folds_nothing_is_said_of_them():
    assert fold_lines(SimpleNamespace(fold_aurocs=())) == []
