"""What stands beside the headline: certainty, patients, seeds, error without bins, and other libraries' numbers."""

import json

import numpy as np
import pandas as pd
import pytest
from studies import calibrator, frame, point, predictions, several_seeds

from pipeline.errors import UsageError
from pipeline.evaluation import metrics
from pipeline.evaluation.beside_headline import evaluate_details
from pipeline.evaluation.calibration import error as calibration_error
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.decisions.decision_curve import net_benefit
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals.bootstrap import auroc_interval
from pipeline.evaluation.intervals.patient_labels import PatientLabels
from pipeline.evaluation.patient_level import by_patient
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.label_certainty import evaluate_by_certainty
from pipeline.evaluation.seeds import spread_over_seeds
from pipeline.evaluation.usual_columns import RATING_SCALE
from pipeline.jobs.evaluate_predictions import evaluate_predictions


def rated(n=400, **settings):
    """Cases with readers' ratings; those of exactly 3 have no label."""
    table = frame(n, **settings)
    rng = np.random.default_rng(7)
    mean = np.where(table["label"] == 1, 3 + rng.choice([0, 0.5, 1, 2], n), 3 - rng.choice([0, 0.5, 1, 2], n))
    table = table.assign(mean_malignancy=mean, label=table["label"].astype("Int8").mask(mean == 3.0))
    return Predictions.from_frame(table).with_probabilities(calibrator().apply)


def test_doubtful_cases_are_excluded_or_counted_either_way():
    test = rated()
    found = {
        each.value: each
        for each in evaluate_by_certainty(test, scale=RATING_SCALE, operating_point=point(), resamples=50)
    }
    doubtful = int((test.frame["mean_malignancy"] == 3).sum())
    labelled = test.labelled()
    excluded = found["indeterminate excluded"]
    assert (excluded.n_cases, excluded.n_positive) == (len(labelled), labelled.labels.sum())
    benign, malignant = found["indeterminate counted benign"], found["indeterminate counted malignant"]
    assert benign.n_cases == malignant.n_cases == len(test) == len(labelled) + doubtful
    assert benign.n_positive == excluded.n_positive
    assert malignant.n_positive == excluded.n_positive + doubtful
    # Slow definition: label them by hand.
    truth = test.frame["label"].fillna(0).to_numpy(int)
    assert benign.evaluation["auroc"].estimate == pytest.approx(metrics.auroc(truth, test.probabilities))
    near, far = found["under 1 from the middle"], found["1 or more from the middle"]
    assert near.n_cases + far.n_cases == len(labelled)
    assert near.n_cases == int((test.frame["mean_malignancy"].sub(3).abs() == 0.5).sum())


def test_ratings_that_are_none_are_one_line():
    with pytest.raises(UsageError, match="have no column 'mean_malignancy'"):
        evaluate_by_certainty(predictions(), scale=RATING_SCALE, operating_point=point())
    worded = Predictions.from_frame(frame().assign(mean_malignancy="high", probability=0.5))
    with pytest.raises(UsageError, match="holds text"):
        evaluate_by_certainty(worded, scale=RATING_SCALE, operating_point=point())


def test_a_patient_scores_as_their_most_suspicious_case():
    test = predictions(300)
    patients = by_patient(test)
    for name, group in test.frame.groupby("patient_id"):
        row = patients.frame.set_index("patient_id").loc[name]
        assert (row["probability"], row["label"]) == (group["probability"].max(), group["label"].max())
    assert len(patients) == test.frame["patient_id"].nunique()


def test_spread_over_seeds_is_apart_from_sampling_error():
    test = predictions(600)
    spread = {each.statistic: each for each in spread_over_seeds(several_seeds(test))}["auroc"]
    values = [
        metrics.auroc(part.labels, part.probabilities)
        for part in (several_seeds(test).where(seed=n) for n in (1, 2, 3))
    ]
    assert (spread.seeds, spread.mean) == (3, pytest.approx(np.mean(values)))
    assert spread.standard_deviation == pytest.approx(np.std(values, ddof=1))
    assert (spread.lowest, spread.highest) == (min(values), max(values))
    same = {each.statistic: each for each in spread_over_seeds(several_seeds(test, noise=0.0))}["auroc"]
    assert same.standard_deviation == pytest.approx(0.0, abs=1e-12)  # though the sample is as small as before
    assert spread_over_seeds(test) == ()
    others = several_seeds(test).frame.iloc[1:].reset_index(drop=True)
    with pytest.raises(UsageError, match="did not judge the same cases"):
        spread_over_seeds(Predictions(others))


def test_lesions_of_6_to_15_mm_stand_beside_the_headline():
    details = evaluate_details(predictions(600), operating_point=point(), resamples=50)
    wide = predictions(600).frame["diameter_mm"]
    assert details.headline_band.n_cases == int(((wide >= 6) & (wide < 15)).sum())
    json.dumps(details.to_json(), allow_nan=False)
    assert (
        evaluate_details(
            Predictions(predictions().frame.drop(columns="diameter_mm")), operating_point=point(), resamples=50
        ).headline_band
        is None
    )


@pytest.mark.parametrize("scale", [1e-310, 1e-9, 30.0, 200.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 33.0, -700.0])
def test_no_logit_however_large_or_small_makes_a_figure_that_is_no_number(scale, shift):
    table = frame(60, seed=3)
    table["logit"] = table["logit"] * scale + shift
    test = Predictions.from_frame(table).with_probabilities(Calibrator("none").apply)
    found = evaluate(test, operating_point=point(), calibrator=Calibrator("none"), resamples=50)
    details = evaluate_details(test, operating_point=point(), calibration=test, resamples=50)
    json.dumps(found.to_json() | details.to_json(), allow_nan=False)


def test_cumulative_error_is_its_slow_definition_and_knows_no_order():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 11, 200) / 10
    labels = (rng.random(200) < values).astype(int)
    drifts = [0.0] + [sum(labels[values <= edge] - values[values <= edge]) for edge in sorted(set(values))]
    expected = (max(drifts) - min(drifts)) / 200
    assert calibration_error.cumulative_calibration_error(labels, values) == pytest.approx(expected)
    shuffled = rng.permutation(200)
    assert calibration_error.cumulative_calibration_error(labels[shuffled], values[shuffled]) == pytest.approx(expected)
    assert calibration_error.cumulative_calibration_error([0, 1], [0.0, 1.0]) == 0.0


def test_cumulative_error_exceeds_its_null_in_5_percent_of_calibrated_studies_and_most_others():
    rng = np.random.default_rng(0)
    above, biased = [], []
    for _ in range(300):
        values = rng.random(150)
        limit = calibration_error.cumulative_null_p95(values, PatientLabels(np.arange(150), 0.0), rng=rng, draws=300)
        drawn = rng.random(150)
        above.append(calibration_error.cumulative_calibration_error(drawn < values, values) > limit)
        biased.append(calibration_error.cumulative_calibration_error(drawn < values**2, values) > limit)
    assert 0.02 <= np.mean(above) <= 0.09
    assert np.mean(biased) > 0.9


def test_several_seeds_are_judged_by_the_lowest_number_and_shown_as_spread(tmp_path):
    from pipeline.evaluation.predictions import write_predictions

    parts = [several_seeds(predictions(300, seed=1)).frame]
    parts.append(several_seeds(predictions(300, seed=2, split="calibration")).frame)
    parts[1]["case_id"], parts[1]["patient_id"] = "c" + parts[1]["case_id"], "c" + parts[1]["patient_id"]
    write_predictions(Predictions.from_frame(pd.concat(parts, ignore_index=True)), tmp_path / "p.parquet")
    evaluate_predictions(tmp_path / "p.parquet", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    test = Predictions(parts[0]).where(seed=1)
    assert written["intervals"]["auroc"]["estimate"] == pytest.approx(metrics.auroc(test.labels, test.probabilities))
    assert {each["statistic"] for each in written["seeds"]} >= {"auroc", "brier_score"}
    assert "seed 1 of 3" in (tmp_path / "out" / "report.html").read_text()


def test_net_benefit_is_that_of_dcurves():
    dcurves = pytest.importorskip("dcurves", reason="the test-only package dcurves is not installed")
    test = predictions(500)
    table = pd.DataFrame({"label": test.labels, "model": test.probabilities})
    edges = [0.05, 0.1, 0.2, 0.35, 0.5]
    theirs = dcurves.dca(data=table, outcome="label", modelnames=["model"], thresholds=edges)
    rows = theirs[theirs["model"] == "model"].sort_values("threshold")
    assert net_benefit(test.labels, test.probabilities, thresholds=edges) == pytest.approx(
        rows["net_benefit"].to_numpy()
    )


def test_independent_cases_have_the_delong_variance_of_mlstatkit():
    stats = pytest.importorskip("MLstatkit", reason="the test-only package MLstatkit is not installed")
    from pipeline.evaluation.intervals.paired_difference import paired_auroc

    test = predictions(400)
    rng = np.random.default_rng(0)
    other = test.probabilities + 0.15 * rng.normal(size=400)
    alone = np.arange(400)
    z, *_ = stats.Delong_test(test.labels, test.probabilities, other)
    ours = paired_auroc(test.labels, test.probabilities, other, alone).interval()
    from scipy.stats import t

    smaller = min(test.labels.sum(), 400 - test.labels.sum())
    error = (ours.upper - ours.lower) / 2 / t.ppf(0.975, smaller - 1)
    assert abs(ours.estimate / error) == pytest.approx(abs(float(z)), rel=1e-6)
    assert auroc_interval(test.labels, test.probabilities, alone).contains(
        ours.estimate + metrics.auroc(test.labels, other)
    )
