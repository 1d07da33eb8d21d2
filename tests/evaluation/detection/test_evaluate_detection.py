"""The whole judgement of a detector: intervals, groups, localisation, calibration of candidates."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from detection_studies import hand_made, lesion, point, simulated

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.detection.evaluate_detection import evaluate_detection
from pipeline.evaluation.detection.froc import RATES, froc
from pipeline.evaluation.detection.matching import match_scans
from pipeline.evaluation.detection.probabilities import candidate_labels
from pipeline.evaluation.detection.searched_scan import SearchedScan


@pytest.fixture(scope="module")
def judged():
    return evaluate_detection(simulated(60), resamples=300)


def test_every_rate_and_their_mean_have_an_interval_around_the_curve(judged):
    curve = froc(simulated(60))
    for rate in RATES:
        interval = judged[f"sensitivity_at_{rate:g}"]
        assert interval.estimate == pytest.approx(float(curve.at([rate])[0]))
        assert interval.lower < interval.estimate < interval.upper <= 1.0
    assert judged["cpm"].estimate == pytest.approx(np.mean([judged[f"sensitivity_at_{r:g}"].estimate for r in RATES]))
    assert (judged.band.lower <= judged.band.y).all()
    assert (judged.band.y <= judged.band.upper).all()


def test_same_scans_and_seed_give_the_same_figures(judged):
    assert evaluate_detection(simulated(60)[::-1], resamples=300)["cpm"] == judged["cpm"]
    other = evaluate_detection(simulated(60), resamples=300, seed=1)
    assert (other.band.lower != judged.band.lower).any()


def test_more_patients_give_narrower_intervals(judged):
    more = evaluate_detection(simulated(400, seed=5), resamples=300)["cpm"]
    assert more.upper - more.lower < 0.6 * (judged["cpm"].upper - judged["cpm"].lower)


def test_detector_that_finds_everything_still_has_a_lower_limit_that_counts_patients():
    scans = [SearchedScan(f"s{n}", f"p{n // 2}", (lesion(0, 8.0),), (point(0, 0.9),)) for n in range(20)]
    interval = evaluate_detection(scans, resamples=100)["cpm"]
    assert (interval.estimate, interval.upper) == (1.0, 1.0)
    assert interval.lower == pytest.approx(0.722, abs=0.001)  # Wilson's limit of 10 of 10


def test_lesions_are_judged_by_diameter_class_and_by_group(judged):
    groups = {(group.name, group.value): group for group in judged.groups}
    names = [name for name, _ in groups]
    assert names == ["diameter_mm"] * 4 + ["texture"] * 2
    assert sum(group.n_lesions for group in judged.groups if group.name == "diameter_mm") == judged.n_lesions
    large, small = groups["diameter_mm", "15 and above"], groups["diameter_mm", "8 to 15"]
    assert large.intervals["cpm"].estimate > small.intervals["cpm"].estimate
    assert groups["diameter_mm", "below 6"].n_lesions > 0


def test_group_of_too_few_patients_has_no_figures():
    small = next(group for group in evaluate_detection(hand_made(), resamples=50).groups)
    assert (small.value, small.intervals) == ("6 to 8", {})
    assert small.too_few == "too few patients to say: 1, at least 10 needed"


def test_lesions_without_a_diameter_or_group_are_listed_as_missing():
    scans = [
        SearchedScan(f"s{n}", f"p{n}", (lesion(0, None), lesion(90, 9.0, site="left")), (point(0, 0.5),))
        for n in range(12)
    ]
    values = {(g.name, g.value): g.n_lesions for g in evaluate_detection(scans, resamples=50).groups}
    assert values == {
        ("diameter_mm", "8 to 15"): 12,
        ("diameter_mm", "(missing)"): 12,
        ("site", "(missing)"): 12,
        ("site", "left"): 12,
    }


def test_localisation_is_measured_on_hits_alone():
    offsets = np.linspace(0.0, 3.0, 31)
    scans = [
        SearchedScan(f"s{n}", f"p{n}", (lesion(0, 10.0), lesion(200, 10.0)), (point(x, 0.9, diameter_mm=12.5),))
        for n, x in enumerate(offsets)
    ]
    judged = evaluate_detection(scans, resamples=300)
    assert judged["localisation_median_mm"].estimate == pytest.approx(1.5)
    assert judged["localisation_p90_mm"].estimate == pytest.approx(2.7)
    assert judged["localisation_median_mm"].contains(1.5)
    assert judged["diameter_error_median_mm"].estimate == pytest.approx(2.5)


def test_statistic_without_hits_is_undefined_with_its_reason():
    judged = evaluate_detection([SearchedScan("a", "p", (lesion(0, 8.0),), ())], resamples=50)
    with pytest.raises(UndefinedMetricError, match="hits in 0 patients; expected at least 2"):
        judged["localisation_median_mm"]
    assert judged.candidates is None
    assert judged["cpm"].estimate == 0.0
    with pytest.raises(UndefinedMetricError, match="is not a statistic of a detector"):
        judged["accuracy"]


def test_intervals_are_undefined_where_many_resamples_have_no_lesion():
    scans = [SearchedScan(f"s{n}", f"p{n}", (), (point(0, 0.3),)) for n in range(3)]
    judged = evaluate_detection([*scans, SearchedScan("a", "p", (lesion(0, 8.0),), (point(0, 0.9),))], resamples=200)
    assert judged.band is None
    assert judged.curve.cpm == 1.0
    with pytest.raises(UndefinedMetricError, match="expected at most 5 %"):
        judged["cpm"]


def test_candidates_are_labelled_by_whether_a_lesion_lies_there():
    given = candidate_labels(match_scans(hand_made()))
    assert sorted(zip(given.probabilities.tolist(), given.labels.tolist(), strict=True)) == [
        (0.3, 0),
        (0.4, 0),
        (0.5, 1),
        (0.8, 0),
        (0.9, 1),
        (0.95, 0),
    ]


def test_overconfident_candidates_have_a_slope_below_one():
    rng = np.random.default_rng(0)
    scans = []
    for number in range(300):
        logits = rng.normal(-0.5, 1.2, 4)
        present = rng.random(4) < 1.0 / (1.0 + np.exp(-logits))
        candidates = tuple(point(100 * k, 1.0 / (1.0 + np.exp(-2.0 * x))) for k, x in enumerate(logits))
        lesions = tuple(lesion(100 * k, 8.0) for k in range(4) if present[k])
        scans.append(SearchedScan(f"s{number}", f"p{number}", lesions, candidates))
    judged = evaluate_detection(scans, resamples=100).candidates
    assert judged.intervals["calibration_slope"].contains(0.5)
    assert judged.calibration.verdict == "refuted"


def test_calibration_of_candidates_speaks_of_lesions_not_of_malignancy():
    rng = np.random.default_rng(1)
    scans = []
    for number in range(60):
        shares = rng.uniform(0.05, 0.95, 3)
        lesions = tuple(lesion(100 * k, 8.0) for k in range(3) if rng.random() < shares[k])
        scans.append(SearchedScan(f"s{number}", f"p{number}", lesions, tuple(map(point, (0, 100, 200), shares))))
    outcome = evaluate_detection(scans, resamples=50).candidates.calibration
    assert outcome.verdict == "not shown"
    assert "in a lesion) would decide" in str(outcome)
    assert "malignant" not in str(outcome)


def test_counts_and_json_hold_every_candidate_once(judged):
    plain = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert sum(plain["candidates_by_outcome"].values()) == sum(len(scan.candidates) for scan in simulated(60))
    assert plain["intervals"]["cpm"]["estimate"] == judged["cpm"].estimate
    assert len(plain["froc"]["sensitivity"]) == len(plain["froc"]["upper"]) == 65


def test_metrics_are_flat_finite_numbers(judged):
    metrics = judged.metrics()
    assert metrics["test_cpm_lower"] < metrics["test_cpm"] < metrics["test_cpm_upper"]
    assert metrics["test_candidates_auroc"] > 0.5
    assert all(np.isfinite(value) for value in metrics.values())


def test_ignored_lesions_are_counted_beside_those_that_count():
    scans = [replace(scan, lesions=(*scan.lesions, lesion(-900, None, ignore=True))) for scan in simulated(20)]
    judged = evaluate_detection(scans, resamples=50)
    assert judged.n_ignored_lesions == len(scans)
    assert judged.n_lesions == sum(len(scan.lesions) for scan in simulated(20))
