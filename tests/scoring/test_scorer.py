"""The scorer: rows of one model and of several, and what never reaches a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import save_tiny, write_model, write_scans

from pipeline.cases import prepare
from pipeline.config.training import Network
from pipeline.errors import UsageError
from pipeline.evaluation.calibration.calibrator import logit, sigmoid
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.scoring import model_directory
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.rows import rows_table
from pipeline.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("scans"), 6)


def test_an_unforeseen_error_is_a_failed_row_without_its_message(tmp_path, cases, monkeypatch):
    real = prepare.preprocess

    def break_third(request, *args, **kwargs):
        if request.path == cases[2].path:
            raise KeyError("PatientName^Secret")
        return real(request, *args, **kwargs)

    monkeypatch.setattr(prepare, "preprocess", break_third)
    rows = list(score_cases(Scorer(load_model(write_model(tmp_path / "model"))), cases))
    assert [row.status for row in rows] == ["scored", "scored", "failed", "scored", "scored", "scored"]
    assert (rows[2].code, rows[2].probability) == ("E_INTERNAL", None)
    assert "KeyError" in rows[2].reason
    assert "Secret" not in str(rows[2])


def test_an_ensemble_is_the_mean_of_calibrated_logits_with_each_member_beside_it(tmp_path, cases):
    models = [load_model(write_model(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    alone = np.array([[row.probability for row in score_cases(Scorer(model), cases)] for model in models])
    rows = list(score_cases(Scorer(*models), cases))
    np.testing.assert_allclose([row.members for row in rows], alone.T, atol=1e-7)
    np.testing.assert_allclose([row.probability for row in rows], sigmoid(logit(alone).mean(axis=0)), atol=1e-7)
    assert rows_table(rows, members=3).column_names[-3:] == [f"probability_member_{number}" for number in (1, 2, 3)]
    thresholds = [model.operating_point.threshold for model in models]
    assert rows[0].threshold == pytest.approx(float(sigmoid(logit(thresholds).mean())))
    assert rows[0].model_digest not in [model.description.digests.model for model in models]


def test_with_an_isotonic_member_probabilities_are_averaged(tmp_path, cases):
    models = [load_model(write_model(tmp_path / method, method=method)) for method in ("temperature", "isotonic")]
    alone = np.array([[row.probability for row in score_cases(Scorer(model), cases)] for model in models])
    rows = list(score_cases(Scorer(*models), cases))
    np.testing.assert_allclose([row.probability for row in rows], alone.mean(axis=0), atol=1e-7)


def test_models_that_read_scans_differently_make_no_ensemble(tmp_path, monkeypatch):
    one = load_model(write_model(tmp_path / "one"))
    described = one.description.model_copy(update={"modality": "MR"})
    other = model_directory.Model(described, one.members, one.operating_points, None)
    with pytest.raises(UsageError, match=r"tiny and tiny differ in modality"):
        Scorer(one, other)
    assert one.description.network == Network(name="compact", width=4)


def zone(malignant_from, benign_to):
    return ReferZone(0.9, malignant_from, benign_to, 100, 100, (0.84, 0.95), (0.84, 0.95))


def test_rows_are_decided_where_threshold_and_refer_zone_agree_and_referred_elsewhere(tmp_path, cases):
    model = load_model(write_model(tmp_path / "model"))
    alone = sorted(row.probability for row in score_cases(Scorer(model), cases))
    low, middle, high = (float(np.mean(alone[first : first + 2])) for first in (0, 2, 4))
    referred = ["negative", "refer", "refer", "refer", "refer", "positive"]
    for malignant_from, benign_to, threshold, expected in [
        (low, high, middle, referred),  # between them, typical of both classes
        (high, low, middle, referred),  # of neither
        (high, high, low, referred),  # of benign cases alone, yet above the threshold
        (low, low, low, ["negative", *["positive"] * 5]),
    ]:
        decided = replace(
            model,
            refer_zone=zone(malignant_from, benign_to),
            operating_points=(replace(model.operating_point, threshold=threshold),),
        )
        rows = sorted(score_cases(Scorer(decided), cases), key=lambda row: row.probability)
        assert [row.probability for row in rows] == pytest.approx(alone, abs=1e-6)
        assert [row.decision for row in rows] == expected


def test_models_of_which_one_has_a_refer_zone_make_no_ensemble(tmp_path):
    save_tiny(tmp_path / "0")
    save_tiny(tmp_path / "1", seed=1, refer_zone=zone(0.4, 0.6))
    with pytest.raises(UsageError, match=r"tiny has a refer zone, .*refer_coverage: null"):
        Scorer(load_model(tmp_path / "0"), load_model(tmp_path / "1"))


def test_every_finding_has_its_own_sigmoid_calibrator_and_threshold(tmp_path, cases):
    names = ("malignant", "spiculated", "calcified")
    model = load_model(write_model(tmp_path / "model", findings=names))
    rows = list(score_cases(Scorer(model), cases))
    table = rows_table(rows, findings=names).to_pandas()
    assert list(table.columns[-6:]) == [f"{part}_{name}" for name in names for part in ("probability", "decision")]
    for place, name in enumerate(names):
        calibrator, point = model.members[0].calibrators[place], model.operating_points[place]
        logits = [row.findings[place].logit for row in rows]
        np.testing.assert_allclose(table[f"probability_{name}"], calibrator.apply(logits), atol=1e-12)
        assert list(table[f"decision_{name}"] == "positive") == list(point.decide(table[f"probability_{name}"]))
    assert (table["probability"] == table["probability_malignant"]).all()
    assert (table["decision"] == table["decision_malignant"]).all()
    assert set(table["threshold"]) == {model.operating_point.threshold}
    assert table["probability_spiculated"].nunique() == len(rows)


def test_a_rejected_case_has_blank_findings(tmp_path, cases):
    scorer = Scorer(load_model(write_model(tmp_path / "model", findings=("malignant", "spiculated"))))
    rows = list(score_cases(scorer, [replace(cases[0], path=tmp_path / "gone.nii.gz"), cases[1]]))
    table = rows_table(rows, findings=scorer.finding_columns).to_pandas()
    assert list(table["status"]) == ["rejected", "scored"]
    assert table[["probability_spiculated", "decision_spiculated"]].isna().all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_multilabel_ensemble_averages_each_finding_by_itself(tmp_path, cases, method):
    names = ("malignant", "spiculated")
    models = [
        load_model(write_model(tmp_path / str(seed), seed=seed, method=method, findings=names)) for seed in (0, 1)
    ]
    alone = np.array(
        [[[each.probability for each in row.findings] for row in score_cases(Scorer(m), cases)] for m in models]
    )  # (M, N, F)
    together = np.array([[each.probability for each in row.findings] for row in score_cases(Scorer(*models), cases)])
    mean = alone.mean(axis=0) if method == "isotonic" else sigmoid(logit(alone).mean(axis=0))
    np.testing.assert_allclose(together, mean, atol=1e-7)


def test_models_of_other_findings_make_no_ensemble(tmp_path):
    models = [
        load_model(write_model(tmp_path / name, findings=("malignant", name))) for name in ("spiculated", "calcified")
    ]
    with pytest.raises(UsageError, match="differ in findings"):
        Scorer(*models)


def test_golden_scans_notice_a_moved_calibrator_of_any_finding(tmp_path):
    from pipeline.scoring.golden import golden_drift

    folder = write_model(tmp_path / "model", findings=("malignant", "spiculated"))
    model = load_model(folder)
    assert golden_drift(Scorer(model), [folder]) < 1e-9
    (member,) = model.members
    swapped = replace(member, calibrators=member.calibrators[::-1])
    assert golden_drift(Scorer(replace(model, members=(swapped,))), [folder]) > 1e-4
