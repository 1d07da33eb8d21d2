"""Matching and FROC: LUNA16's rule worked out by hand, MONAI's FROC, and what must change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from detection_studies import hand_made, lesion, point, simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.detection.froc import RATES, froc, froc_replicates
from pipeline.evaluation.detection.matching import match_scan, match_scans
from pipeline.evaluation.detection.searched_scan import SearchedScan


def test_luna16_rule_on_a_table_worked_out_by_hand():
    first, second, *_ = hand_made()
    assert match_scan(first).outcomes == ("hit", "duplicate", "false positive", "ignored")
    assert match_scan(second).outcomes == ("hit", "false positive", "false positive")
    curve = froc(hand_made())
    # 4 scans, 3 lesions; falling probabilities: .95 false, .9 hit, .8 false, .5 hit, .4 false, .3 false
    assert curve.thresholds.tolist() == [np.inf, 0.95, 0.9, 0.8, 0.5, 0.4, 0.3]
    assert curve.false_positives == pytest.approx([0, 1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4, 1])
    assert curve.sensitivity == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert curve.at(RATES) == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert curve.cpm == pytest.approx(11 / 21)


def test_hit_and_false_positive_of_equal_probability_are_called_together():
    curve = froc([SearchedScan("a", "p", (lesion(0, 8.0),), (point(0, 0.5), point(90, 0.5)))])
    assert curve.at([0.125, 0.5, 1.0]) == pytest.approx([0.125, 0.5, 1.0])


def test_candidate_in_two_overlapping_lesions_hits_both():
    matched = match_scan(SearchedScan("a", "p", (lesion(0, 10.0), lesion(4, 10.0)), (point(2, 0.9),)))
    assert [match.candidate for match in matched.lesions] == [0, 0]


def test_most_probable_candidate_is_the_hit_and_of_equals_the_nearest():
    matched = match_scan(SearchedScan("a", "p", (lesion(0, 10.0),), (point(1, 0.4), point(3, 0.7), point(2, 0.7))))
    assert matched.outcomes == ("duplicate", "duplicate", "hit")
    assert matched.lesions[0].distance_mm == 2.0


def test_agrees_with_monai_on_a_labelled_grid():
    from monai.metrics import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score

    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(48)] * 3, indexing="ij"), axis=-1)
    false, true, targets, scans = [], [], 0, []
    for number in range(12):
        centers = [np.array([12, 12, 12 + 22 * place]) for place in range(rng.integers(0, 3))]
        diameters = rng.uniform(5.0, 14.0, len(centers))
        mask = np.zeros(grid.shape[:3], dtype=int)
        for label, (center, diameter) in enumerate(zip(centers, diameters, strict=True), start=1):
            mask[np.linalg.norm(grid - center, axis=-1) < diameter / 2] = label
        count = int(rng.integers(1, 12))
        near = [center + rng.integers(-4, 5, 3) for center in centers for _ in range(2)]
        coords = np.array([*rng.integers(0, 48, (count, 3)), *near])
        probabilities = rng.random(len(coords))
        of_scan = compute_fp_tp_probs_nd(probabilities, coords, mask)
        false += list(of_scan[0])
        true += [probability for probability in of_scan[1] if probability > 0.0]  # a missed lesion has 0
        targets += len(centers)
        lesions = tuple(lesion(c[0], d, y=c[1], z=c[2]) for c, d in zip(centers, diameters, strict=True))
        points = tuple(point(c[0], p, y=c[1], z=c[2]) for c, p in zip(coords, probabilities, strict=True))
        scans.append(SearchedScan(str(number), str(number), lesions, points))
    # MONAI leaves the lowest threshold out, so it is given one below all others.
    curve = compute_froc_curve_data(np.array([*false, -1.0]), np.array(true), targets, len(scans))
    ours = froc(scans)
    assert targets > 8
    assert ours.n_lesions == targets
    assert ours.at(RATES).mean() == pytest.approx(compute_froc_score(*curve, eval_thresholds=RATES), abs=1e-12)
    for rate in (0.3, 1.7, 3.0):
        assert ours.at([rate])[0] == pytest.approx(compute_froc_score(*curve, eval_thresholds=(rate,)), abs=1e-12)


@given(seed=st.integers(0, 50), power=st.floats(0.2, 5.0))
@settings(max_examples=25, deadline=None)
def test_monotone_rescaling_of_probabilities_changes_nothing(seed, power):
    scans = simulated(12, seed=seed)
    rescaled = [
        replace(scan, candidates=tuple(replace(c, probability=c.probability**power) for c in scan.candidates))
        for scan in scans
    ]
    if not any(scan.lesions for scan in scans):
        return
    np.testing.assert_array_equal(froc(scans).sensitivity, froc(rescaled).sensitivity)
    np.testing.assert_array_equal(froc(scans).false_positives, froc(rescaled).false_positives)


@given(seed=st.integers(0, 50), share=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_duplicates_of_hits_and_candidates_of_ignored_lesions_change_nothing(seed, share):
    scans = simulated(12, seed=seed)
    more = []
    for scan in scans:
        matched = match_scan(scan)
        extra = [
            point(match.lesion.center_mm[0], share * scan.candidates[match.candidate].probability)
            for match in matched.lesions
            if match.candidate is not None
        ]
        ignored = (lesion(-500, 8.0, ignore=True), lesion(-700, None, ignore=True))
        extra += [point(-501, share), point(-503, 1.0), point(-700, 1.0 - share)]
        more.append(replace(scan, lesions=(*ignored, *scan.lesions), candidates=(*extra, *scan.candidates)))
    ours, with_more = froc(scans), froc(more)
    np.testing.assert_array_equal(ours.thresholds, with_more.thresholds)
    np.testing.assert_array_equal(ours.sensitivity, with_more.sensitivity)
    np.testing.assert_array_equal(ours.false_positives, with_more.false_positives)


@given(seed=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_sensitivity_never_falls_as_more_false_positives_are_allowed(seed):
    curve = froc(simulated(10, seed=seed)[:8] + hand_made())
    assert (np.diff(curve.sensitivity) >= 0.0).all()
    assert (np.diff(curve.false_positives) >= 0.0).all()
    assert (np.diff(curve.at(np.linspace(0.0, 10.0, 200))) >= 0.0).all()


def test_order_of_scans_lesions_and_candidates_changes_nothing():
    scans = simulated(20, seed=4)
    turned = [replace(s, lesions=s.lesions[::-1], candidates=s.candidates[::-1]) for s in reversed(scans)]
    assert froc(scans).cpm == froc(turned).cpm


def test_lesions_of_a_group_are_judged_at_the_false_positives_of_all_scans():
    matches = match_scans(hand_made())
    small = np.array([match.lesion.diameter_mm < 9.0 for match in matches.lesions])
    curve = froc(matches, among=small)
    assert curve.n_lesions == 2
    assert curve.at([0.25, 0.5, 1.0]) == pytest.approx([0.0, 0.5, 0.5])
    assert curve.false_positives[-1] == 1.0


def test_resampling_draws_whole_patients():
    scan = SearchedScan("a", "p", (lesion(0, 8.0),), (point(0, 0.9),))
    missed = SearchedScan("b", "q", (lesion(0, 8.0),), ())
    matches = match_scans([scan, replace(scan, scan_id="c"), missed, replace(missed, scan_id="d")])
    values = froc_replicates(matches, resamples=400, rng=np.random.default_rng(0)).at_rates[:, 3]
    assert set(np.unique(values)) == {0.0, 0.5, 1.0}
    assert abs(values.mean() - 0.5) < 0.06


def test_replicates_are_the_curves_of_scans_given_again():
    scans = simulated(6, seed=9)
    matches = match_scans(scans)
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    values = froc_replicates(matches, resamples=8, rng=rng).at_rates
    patients = sorted({scan.patient_id for scan in scans})
    drawn = same.integers(0, len(patients), size=(8, len(patients)))
    for row, found in zip(drawn, values, strict=True):
        again = [
            replace(scan, scan_id=f"{scan.scan_id} {time}", patient_id=str(time))
            for time, number in enumerate(row)
            for scan in scans
            if scan.patient_id == patients[number]
        ]
        np.testing.assert_allclose(found, froc(again).at(RATES), atol=1e-12)


def test_scans_without_a_lesion_that_counts_have_no_froc():
    with pytest.raises(UndefinedMetricError, match="none of the lesions of 1 scans counts"):
        froc([SearchedScan("a", "p", (lesion(0, 8.0, ignore=True),), (point(0, 0.9),))])


def test_scans_without_any_candidate_have_no_sensitivity_at_any_rate():
    assert froc([SearchedScan("a", "p", (lesion(0, 8.0),), ())]).cpm == 0.0


@pytest.mark.parametrize(
    ("scans", "message"),
    [((), "there is none to judge"), ((hand_made()[3], hand_made()[3]), "d is given 2 times")],
)
def test_scans_that_cannot_be_judged_are_refused(scans, message):
    with pytest.raises(UsageError, match=message):
        froc(scans)


def test_values_that_cannot_be_meant_are_refused():
    with pytest.raises(UsageError, match=r"probability 1\.2; expected"):
        point(0, 1.2)
    with pytest.raises(UsageError, match="not finite"):
        point(np.nan, 0.2)
    with pytest.raises(UsageError, match=r"diameter 0\.0 mm; expected above 0"):
        lesion(0, 0.0)
    with pytest.raises(UsageError, match="not finite"):
        lesion(np.inf, 3.0)
