"""Differences between subgroups: hand-worked limits, coverage, and what so many cases could show."""

import json

import numpy as np
import pytest
from simulated_studies import simulate
from studies import calibrator, frame, point, predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.beside_headline import evaluate_details
from pipeline.evaluation.intervals.bootstrap import auroc_interval
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.subgroup_gaps import auroc_gap, detectable_gap, proportion_gap, subgroup_gaps
from pipeline.evaluation.subgroups import evaluate_subgroups

TEST = predictions(600, seed=4)


def sides_of(study, how, share, rng):
    inside = (rng.random(study.patients.max() + 1) < share)[study.patients]
    if how == "case":  # a patient's cases may be on both sides
        inside = rng.random(study.patients.size) < share
    return inside, ~inside


def test_a_difference_of_proportions_is_newcombes_worked_example():
    """Newcombe (1998), method 10, 56 of 70 and 48 of 80: 0.2 (0.0524 to 0.3339); every patient has one case."""
    right = np.repeat([True, False, True, False], [56, 14, 48, 32])
    first = np.arange(150) < 70
    found = proportion_gap(right, np.arange(150).astype(str), (first, ~first))
    assert found.estimate == pytest.approx(0.2)
    # Wilson's limits are by the t-corrected effective size here, so a little wider.
    assert (found.lower, found.upper) == (pytest.approx(0.0524, abs=0.003), pytest.approx(0.3339, abs=0.003))


def test_limits_of_disjoint_patients_are_combined_without_correlation():
    labels, scores = TEST.labels, TEST.probabilities
    north = (TEST.frame["site"] == "north").to_numpy()
    found = auroc_gap(labels, scores, TEST.patients, (north, ~north))
    one, two = (auroc_interval(labels[side], scores[side], TEST.patients[side]) for side in (north, ~north))
    assert found.estimate == pytest.approx(
        metrics.auroc(labels[north], scores[north]) - metrics.auroc(labels[~north], scores[~north])
    )
    assert found.lower == pytest.approx(
        found.estimate - np.hypot(one.estimate - one.lower, two.upper - two.estimate), abs=1e-9
    )
    assert found.upper == pytest.approx(
        found.estimate + np.hypot(one.upper - one.estimate, two.estimate - two.lower), abs=1e-9
    )


def test_cases_of_one_patient_on_both_sides_narrow_the_difference():
    """Each patient has a case on either side with the same answer: the difference is 0 for certain."""
    right = np.tile(np.random.default_rng(0).random(80) < 0.7, 2)
    patients = np.tile(np.arange(80), 2).astype(str)
    first = np.arange(160) < 80
    same = proportion_gap(right, patients, (first, ~first))
    apart = proportion_gap(right, np.arange(160).astype(str), (first, ~first))
    wilson = proportion_interval(right[:80], patients[:80])
    reach = (wilson.upper - wilson.estimate) - (wilson.estimate - wilson.lower)
    assert same.upper == pytest.approx(abs(reach), abs=1e-9)
    assert same.upper - same.lower < 0.2 * (apart.upper - apart.lower)


def test_auroc_on_both_sides_of_the_same_patients_narrows_the_difference():
    study = simulate(np.random.default_rng(5), 300)
    labels, scores = np.tile(study.labels, 2), np.tile(study.probabilities, 2)
    first = np.arange(labels.size) < study.labels.size
    ids = study.patients.astype(str)
    same = auroc_gap(labels, scores, np.tile(ids, 2), (first, ~first))
    apart = auroc_gap(labels, scores, np.concatenate([ids, np.char.add(ids, "x")]), (first, ~first))
    assert same.upper - same.lower < 0.3 * (apart.upper - apart.lower)


def test_a_side_without_a_class_has_no_difference_in_auroc():
    labels, first = np.array([1, 1, 0, 1, 0]), np.array([True, True, False, False, False])
    with pytest.raises(UndefinedMetricError, match="all 2 cases are malignant"):
        auroc_gap(labels, np.arange(5.0), np.arange(5).astype(str), (first, ~first))


def test_two_values_are_compared_once_and_more_each_with_the_others():
    found = subgroup_gaps(TEST, ["site", "diameter_mm"], operating_point=point())
    names = [(gap.column, gap.value, gap.against) for gap in found if gap.statistic == "specificity"]
    thirds = [value for column, value, _ in names if column == "diameter_mm"]
    assert names[0] == ("site", "north", "south")
    assert len(thirds) == 3
    assert {against for column, _, against in names if column == "diameter_mm"} == {"the others"}
    first = next(gap for gap in found if gap.statistic == "sensitivity")
    positive, malignant = TEST.probabilities >= 0.2, TEST.labels == 1
    north = (TEST.frame["site"] == "north").to_numpy()
    assert first.difference.estimate == pytest.approx(
        positive[malignant & north].mean() - positive[malignant & ~north].mean()
    )
    json.dumps([gap.to_json() for gap in found], allow_nan=False)


def test_only_what_ten_patients_on_either_side_can_say_is_compared():
    rows = frame(600, seed=4)
    malignant = rows["label"] == 1
    # A value with benign cases alone: specificity can be compared, sensitivity and AUROC cannot.
    rows["site"] = np.where(~malignant & (np.arange(600) % 5 == 0), "screening", "clinic")
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    assert [gap.statistic for gap in subgroup_gaps(made, ["site"], operating_point=point())] == ["specificity"]
    rows["site"] = ["few"] * 8 + ["many"] * 592
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    assert subgroup_gaps(made, ["site"], operating_point=point()) == ()


def test_what_is_beyond_chance_allows_for_every_comparison():
    """Each of m comparisons is judged at 1 - 0.05 / m: an interval barely off 0 is not enough for several."""
    rows = frame(600, seed=4)
    one = subgroup_gaps(TEST, ["site"], operating_point=point())
    rng = np.random.default_rng(8)
    for number in range(12):
        rows[f"noise_{number}"] = np.where(rng.random(600) < 0.5, "a", "b")
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    names = [f"noise_{number}" for number in range(12)]
    many = subgroup_gaps(made, ["site", *names], operating_point=point())
    assert len(many) == 3 * 13
    assert [gap.difference for gap in many[: len(one)]] == [gap.difference for gap in one]
    assert not any(gap.beyond_chance for gap in many if gap.column != "site")
    # A subgroup whose scores are noise is beyond chance, however many comparisons stand beside it.
    rows["logit"] = np.where(rows["noise_0"] == "a", rng.normal(size=600), rows["logit"])
    broken = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    found = subgroup_gaps(broken, names, operating_point=point())
    gap = next(gap for gap in found if (gap.column, gap.statistic) == ("noise_0", "auroc"))
    assert gap.beyond_chance
    assert gap.difference.upper < 0


def test_the_level_of_a_comparison_is_bonferronis():
    found = subgroup_gaps(TEST, ["site"], operating_point=point())
    north = (TEST.frame["site"] == "north").to_numpy()
    strict = auroc_gap(TEST.labels, TEST.probabilities, TEST.patients, (north, ~north), level=1 - 0.05 / 3)
    assert len(found) == 3
    assert found[0].beyond_chance == (not strict.contains(0.0))
    assert strict.upper - strict.lower > found[0].difference.upper - found[0].difference.lower


def test_the_smallest_gap_is_found_in_80_percent_of_studies():
    assert detectable_gap(Interval(0.0, -0.1, 0.1)) == pytest.approx(0.1 * (1.959964 + 0.841621) / 1.959964)
    rng, error = np.random.default_rng(2), 0.1 / 1.959964
    gap = detectable_gap(Interval(0.0, -0.1, 0.1))
    assert np.mean(np.abs(rng.normal(gap, error, 20_000)) > 0.1) == pytest.approx(0.8, abs=0.01)


def test_a_subgroup_of_one_class_keeps_what_is_defined():
    rows = frame(600, seed=4)
    rows["site"] = np.where(rows["label"] == 1, "surgery", "screening")
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    screening, surgery = evaluate_subgroups(made, ["site"], operating_point=point(), resamples=50)
    assert "sensitivity" in surgery.evaluation.intervals
    assert not {"auroc", "specificity", "average_precision", "calibration_slope"} & set(surgery.evaluation.intervals)
    assert "0 with benign cases, at least 10 needed" in surgery.too_few
    assert "specificity" in screening.evaluation.intervals
    assert "sensitivity" not in screening.evaluation.intervals
    json.dumps([screening.to_json(), surgery.to_json()], allow_nan=False)
    positive = made.probabilities[made.labels == 1] >= 0.2
    assert surgery.evaluation["sensitivity"].estimate == pytest.approx(positive.mean())


def test_a_subgroup_with_few_of_one_class_says_nothing_that_needs_both():
    rows = frame(600, seed=4)
    malignant = np.flatnonzero(rows["label"] == 1)
    members = np.r_[malignant[:6], np.flatnonzero(rows["label"] == 0)[:60]]
    rows["site"] = np.where(np.isin(np.arange(600), members), "small", "large")
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    small = next(
        each
        for each in evaluate_subgroups(made, ["site"], operating_point=point(), resamples=50)
        if each.value == "small"
    )
    assert set(small.evaluation.intervals) <= {"specificity", "observed_expected"}
    assert "too few patients to say: 6 with malignant" in small.evaluation.undefined["auroc"]
    with pytest.raises(UndefinedMetricError, match="too few patients to say"):
        small.evaluation["auroc"]


def test_a_subgroup_of_fewer_than_ten_patients_says_nothing():
    rows = frame(600, seed=4)
    rows["site"] = ["few"] * 9 + ["many"] * 591
    rows["patient_id"] = [f"p{number}" for number in range(600)]
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    few, _ = evaluate_subgroups(made, ["site"], operating_point=point(), resamples=50)
    assert (few.n_patients, few.evaluation) == (9, None)


def test_details_hold_the_gaps():
    details = evaluate_details(TEST, operating_point=point(), columns=["site"], resamples=50)
    assert details.to_json()["subgroup_gaps"][0]["statistic"] == "auroc"
    # Diameters are in three bands, and sites in two.
    assert len({(gap.column, gap.value) for gap in details.gaps}) == 4


def gap_coverage(studies, patients, how, *, share=0.3, seed=0, **model):
    """Share of studies without a true gap whose interval holds 0."""
    large = simulate(np.random.default_rng(9), 60_000, **model)
    threshold = float(np.quantile(large.probabilities[large.labels == 1], 0.1))
    held = {"auroc": [], "sensitivity": [], "specificity": []}
    for number in range(studies):
        rng = np.random.default_rng([seed, number])
        study = simulate(rng, patients, **model)
        sides, ids = sides_of(study, how, share, rng), study.patients.astype(str)
        held["auroc"].append(auroc_gap(study.labels, study.probabilities, ids, sides).contains(0.0))
        for name, label in (("sensitivity", 1), ("specificity", 0)):
            right, wanted = (study.probabilities >= threshold) == (label == 1), study.labels == label
            found = proportion_gap(right, ids, (sides[0] & wanted, sides[1] & wanted))
            held[name].append(found.contains(0.0))
    return {name: float(np.mean(values)) for name, values in held.items()}


@pytest.mark.parametrize("how", ["patient", "case"])
def test_differences_cover_0_where_there_is_none(how):
    assert all(share >= 0.92 for share in gap_coverage(400, 160, how).values())


@pytest.mark.campaign
def test_differences_cover_0_in_93_to_98_percent_of_studies():
    print("\n| patients | subgroup of | cases | AUROC | sensitivity | specificity |\n|---|---|---|---|---|---|")
    for patients in (110, 215, 430):
        for how in ("patient", "case"):
            for title, model in (("alike 0.6", {}), ("alike 0.9", {"within": 0.9}), ("AUROC 0.84", {"strength": 1.0})):
                found = gap_coverage(2000, patients, how, **model)
                print(
                    f"| {patients} | {how}s | {title} | " + " | ".join(f"{each:.3f}" for each in found.values()) + " |"
                )
                assert all(0.93 <= share <= 0.985 for share in found.values())
