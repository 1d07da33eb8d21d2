import contextlib
import re

import numpy as np
import pytest
import statsmodels.api as api
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from studies import predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.intervals import delong, resampling
from pipeline.evaluation.intervals.bootstrap import (
    auroc_interval,
    average_precision_interval,
    paired_auroc_difference,
    percentile_interval,
)
from pipeline.evaluation.intervals.clustered import (
    calibration_intercept_interval,
    calibration_slope_interval,
    mean_difference_interval,
    mean_interval,
    proportion_caution,
    proportion_interval,
)
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.intervals.paired_difference import paired_auroc

TEST = predictions(240, seed=2)
LABELS, PROBABILITIES, PATIENTS = TEST.labels, TEST.probabilities, TEST.patients


def slow_obuchowski(labels, scores, patients):
    """The 1997 formulas as printed, with loops."""
    ids = sorted(set(patients))
    x = {i: scores[(patients == i) & (labels == 1)] for i in ids}
    y = {i: scores[(patients == i) & (labels == 0)] for i in ids}
    every_x, every_y = np.concatenate(list(x.values())), np.concatenate(list(y.values()))

    def order(a, b):
        return 1.0 if a > b else 0.5 if a == b else 0.0

    m, n, count = every_x.size, every_y.size, len(ids)
    area = sum(order(a, b) for a in every_x for b in every_y) / (m * n)
    v10 = {i: sum(sum(order(a, b) for b in every_y) / n for a in x[i]) for i in ids}
    v01 = {i: sum(sum(order(a, b) for a in every_x) / m for b in y[i]) for i in ids}
    i10, i01 = sum(x[i].size > 0 for i in ids), sum(y[i].size > 0 for i in ids)
    s10 = i10 / ((i10 - 1) * m) * sum((v10[i] - x[i].size * area) ** 2 for i in ids)
    s01 = i01 / ((i01 - 1) * n) * sum((v01[i] - y[i].size * area) ** 2 for i in ids)
    s11 = count / (count - 1) * sum((v10[i] - x[i].size * area) * (v01[i] - y[i].size * area) for i in ids)
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


def slow_delong(labels, scores):
    x, y = scores[labels == 1], scores[labels == 0]
    order = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    return order.mean(), order.mean(axis=1).var(ddof=1) / x.size + order.mean(axis=0).var(ddof=1) / y.size


def variance(labels, scores, patients):
    groups = as_groups(patients, labels)
    parts = delong.components(labels, scores, groups)
    return parts.auroc, delong.covariance(labels, groups, parts, parts)


@pytest.mark.parametrize("decimals", [1, 9])
def test_clustered_variance_is_obuchowskis(decimals):
    scores = np.round(PROBABILITIES, decimals)[:90]
    expected = slow_obuchowski(LABELS[:90], scores, PATIENTS[:90])
    assert variance(LABELS[:90], scores, PATIENTS[:90]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("decimals", [1, 9])
def test_with_one_case_a_patient_the_variance_is_delongs(decimals):
    scores = np.round(PROBABILITIES, decimals)
    expected = slow_delong(LABELS, scores)
    assert variance(LABELS, scores, np.arange(LABELS.size)) == pytest.approx(expected, rel=1e-10)


def test_copies_of_a_patients_cases_add_no_certainty():
    twice = [np.concatenate([each, each]) for each in (LABELS, PROBABILITIES, PATIENTS)]
    once, doubled = auroc_interval(LABELS, PROBABILITIES, PATIENTS), auroc_interval(*twice)
    assert (doubled.lower, doubled.upper) == pytest.approx((once.lower, once.upper))
    naive = auroc_interval(twice[0], twice[1], np.arange(twice[0].size))
    assert naive.upper - naive.lower < 0.85 * (once.upper - once.lower)
    for found in (
        [f(*arrays) for arrays in ((LABELS, PROBABILITIES, PATIENTS), twice)]
        for f in (calibration_slope_interval, calibration_intercept_interval)
    ):
        assert found[0].lower == pytest.approx(found[1].lower, abs=1e-6)


def test_weighted_statistics_are_scikit_learns():
    rng = np.random.default_rng(0)
    groups = as_groups(PATIENTS, LABELS)
    for scores in (PROBABILITIES, np.round(PROBABILITIES, 1)):
        ranking = resampling.Ranking.of(LABELS, scores)
        for weights in resampling.patient_weights(groups, resamples=30, rng=rng):
            areas = resampling.auroc_statistic(ranking)(weights)
            precisions = resampling.average_precision_statistic(ranking)(weights)
            for row, area, precision in zip(weights, areas, precisions, strict=True):
                assert area == pytest.approx(roc_auc_score(LABELS, scores, sample_weight=row), abs=1e-12)
                assert precision == pytest.approx(average_precision_score(LABELS, scores, sample_weight=row), abs=1e-12)


def test_a_patients_cases_travel_together():
    groups = as_groups(PATIENTS, LABELS)
    (weights,) = resampling.patient_weights(groups, resamples=20, rng=np.random.default_rng(0))
    for group in range(groups.max() + 1):
        assert (weights[:, groups == group] == weights[:, groups == group][:, :1]).all()
    first = [np.flatnonzero(groups == group)[0] for group in range(groups.max() + 1)]
    assert (weights[:, first].sum(axis=1) == groups.max() + 1).all()


def bootstrap_interval(statistic, name, *, resamples, seed):
    """Percentile interval of a statistic over resamples of the patients."""
    groups = as_groups(PATIENTS, LABELS)
    values = resampling.replicates(groups, {name: statistic}, resamples=resamples, rng=np.random.default_rng(seed))
    return percentile_interval(name, float(statistic(np.ones((1, LABELS.size)))[0]), values[name])


def statistics():
    """The statistics of the bootstrap by the name of the metric that each one is."""
    ranking = resampling.Ranking.of(LABELS, PROBABILITIES)
    return {
        "auroc": resampling.auroc_statistic(ranking),
        "average_precision": resampling.average_precision_statistic(ranking),
        "brier_score": resampling.mean_statistic((PROBABILITIES - LABELS) ** 2),
        "log_loss": resampling.mean_statistic(metrics.case_log_losses(LABELS, PROBABILITIES)),
    }


def test_the_bootstrap_is_the_slow_bootstrap():
    rng = np.random.default_rng(2)
    members = [np.flatnonzero(patient == PATIENTS) for patient in np.unique(PATIENTS)]
    slow = {name: [] for name in statistics()}
    for _ in range(400):
        drawn = np.concatenate([members[patient] for patient in rng.integers(0, len(members), len(members))])
        for name, values in slow.items():
            values.append(getattr(metrics, name)(LABELS[drawn], PROBABILITIES[drawn]))
    for name, statistic in statistics().items():
        interval = bootstrap_interval(statistic, name, resamples=2000, seed=1)
        width = interval.upper - interval.lower
        assert np.quantile(slow[name], [0.025, 0.975]) == pytest.approx(
            [interval.lower, interval.upper], abs=0.15 * width
        )
        assert interval.estimate == pytest.approx(getattr(metrics, name)(LABELS, PROBABILITIES))


def test_the_same_generator_gives_the_same_interval():
    first, second = (
        average_precision_interval(LABELS, PROBABILITIES, PATIENTS, resamples=200, rng=np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == second


def test_analytic_and_bootstrap_intervals_agree():
    analytic = auroc_interval(LABELS, PROBABILITIES, PATIENTS)
    drawn = bootstrap_interval(statistics()["auroc"], "auroc", resamples=2000, seed=0)
    assert (analytic.lower, analytic.upper) == pytest.approx((drawn.lower, drawn.upper), abs=0.015)
    precise = average_precision_interval(LABELS, PROBABILITIES, PATIENTS, rng=np.random.default_rng(1))
    drawn = bootstrap_interval(statistics()["average_precision"], "average_precision", resamples=2000, seed=2)
    assert (precise.lower, precise.upper) == pytest.approx((drawn.lower, drawn.upper), abs=0.03)


def test_paired_intervals_agree_and_use_the_pairing():
    rng = np.random.default_rng(0)
    comparison = PROBABILITIES + 0.05 * rng.normal(size=LABELS.size)
    drawn = paired_auroc_difference(LABELS, PROBABILITIES, comparison, PATIENTS, rng=rng)
    analytic = paired_auroc(LABELS, PROBABILITIES, comparison, PATIENTS).interval()
    expected = metrics.auroc(LABELS, PROBABILITIES) - metrics.auroc(LABELS, comparison)
    assert drawn.estimate == pytest.approx(expected)
    assert analytic.estimate == pytest.approx(expected)
    assert (drawn.lower, drawn.upper) == pytest.approx((analytic.lower, analytic.upper), abs=0.004)
    alone = auroc_interval(LABELS, PROBABILITIES, PATIENTS)
    assert drawn.upper - drawn.lower < 0.5 * (alone.upper - alone.lower)


def test_a_model_does_not_differ_from_itself():
    same = paired_auroc_difference(
        LABELS, PROBABILITIES, PROBABILITIES, PATIENTS, rng=np.random.default_rng(0), resamples=50
    )
    assert (same.estimate, same.lower, same.upper) == (0.0, 0.0, 0.0)


def test_swapping_the_models_turns_the_difference_round():
    comparison = np.round(PROBABILITIES, 1)
    one = paired_auroc(LABELS, PROBABILITIES, comparison, PATIENTS).interval()
    other = paired_auroc(LABELS, comparison, PROBABILITIES, PATIENTS).interval()
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))


def test_two_patients_of_each_class_are_enough_for_an_auroc_interval_and_one_is_not():
    labels, scores = np.array([1, 1, 1, 0, 0, 0]), np.array([0.2, 0.8, 0.9, 0.1, 0.3, 0.4])
    found = auroc_interval(labels, scores, list("aabccd"))
    assert found.lower < found.estimate < found.upper
    with pytest.raises(UndefinedMetricError, match="1 patients have malignant and 2 have benign cases"):
        auroc_interval(labels, scores, list("aaabbc"))


@pytest.mark.parametrize("area", [0.5, 0.8, 0.99])
def test_the_variance_without_spread_is_hanley_and_mcneils_with_the_mean_of_the_class_sizes(area):
    malignant, benign = 12, 30
    size = (malignant + benign) / 2
    both = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    expected = (area * (1 - area) + (size - 1) * sum(both)) / (malignant * benign)
    assert delong.exponential_variance(area, malignant, benign) == pytest.approx(expected)


def test_perfect_separation_still_leaves_room_for_doubt():
    labels, scores = np.repeat([0, 1], 12), np.arange(24.0)
    interval = auroc_interval(labels, scores, np.arange(24))
    assert (interval.estimate, interval.upper) == (1.0, 1.0)
    assert 0.75 < interval.lower < 0.95
    turned = auroc_interval(labels, -scores, np.arange(24))
    assert (turned.lower, turned.upper) == pytest.approx((0.0, 1.0 - interval.lower))
    with pytest.raises(UndefinedMetricError, match="no spread to measure"):
        average_precision_interval(labels, scores, np.arange(24), rng=np.random.default_rng(0))


@pytest.mark.parametrize("patients", [2, 3, 5])
def test_with_one_case_a_patient_a_mean_difference_is_students(patients):
    differences = np.random.default_rng(patients).normal(0.1, 1.0, patients)
    found = mean_difference_interval(differences, np.arange(patients))
    known = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("patients", [2, 3, 5])
def test_with_one_case_a_patient_a_mean_is_students_on_the_log_scale(patients):
    losses = np.random.default_rng(patients).uniform(0.2, 0.4, patients)
    found = mean_interval(losses, np.arange(patients))
    known = stats.ttest_1samp(losses, 0.0).confidence_interval(0.95)
    reach = (known.high - losses.mean()) / losses.mean()
    assert (found.lower, found.upper) == pytest.approx((losses.mean() * np.exp(-reach), losses.mean() * np.exp(reach)))


def test_means_have_the_clustered_error_of_statsmodels_least_squares():
    values, groups = (PROBABILITIES - LABELS) ** 2, as_groups(PATIENTS, LABELS)
    count = groups.max() + 1
    clusters = {"groups": groups, "use_correction": False}
    fit = api.OLS(values, np.ones(values.size)).fit(cov_type="cluster", cov_kwds=clusters)
    reach = stats.t.ppf(0.975, count - 1) * np.sqrt(count / (count - 1)) * fit.bse[0]
    found = mean_difference_interval(values, PATIENTS)
    assert (found.lower, found.upper) == pytest.approx((fit.params[0] - reach, fit.params[0] + reach))
    losses = mean_interval(values, PATIENTS)
    assert np.log(losses.upper / losses.estimate) == pytest.approx(reach / fit.params[0])
    assert np.log(losses.estimate / losses.lower) == pytest.approx(reach / fit.params[0])


def test_resamples_without_a_class_leave_the_bootstraps_error_as_it_is():
    # Two malignant patients of eight: a tenth of the resamples have none, and a value of 0 for them would widen it.
    labels, scores = np.array([1, 0, 0, 0, 0, 1, 0, 0]), np.array([0.9, 0.2, 0.4, 0.1, 0.3, 0.35, 0.6, 0.5])
    patients = np.arange(8)
    ranking = resampling.Ranking.of(labels, scores)
    statistics = {
        "auroc": resampling.auroc_statistic(ranking),
        "average_precision": resampling.average_precision_statistic(ranking),
    }
    found = resampling.replicates(patients, statistics, resamples=400, rng=np.random.default_rng(0))
    none = np.concatenate(
        [
            block @ labels == 0
            for block in resampling.patient_weights(patients, resamples=400, rng=np.random.default_rng(0))
        ]
    )
    assert none.sum() > 20
    for values in found.values():
        np.testing.assert_array_equal(np.isnan(values), none)


def test_calibration_intervals_are_those_of_statsmodels_clustered_logit():
    chosen = np.isin(PATIENTS, np.unique(PATIENTS)[:20])
    labels, probabilities, patients = LABELS[chosen], PROBABILITIES[chosen], PATIENTS[chosen]
    groups, odds = as_groups(patients, labels), np.log(probabilities / (1 - probabilities))
    count = groups.max() + 1
    reach = stats.t.ppf(0.975, count - 1) * np.sqrt(count / (count - 1))
    clusters = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": False}}
    binomial = {"family": api.families.Binomial()}
    slope = api.GLM(labels, np.column_stack([np.ones(odds.size), odds]), **binomial).fit(**clusters)
    intercept = api.GLM(labels, np.ones((odds.size, 1)), offset=odds, **binomial).fit(**clusters)
    for compute, fit, place in (
        (calibration_slope_interval, slope, 1),
        (calibration_intercept_interval, intercept, 0),
    ):
        found = compute(labels, probabilities, patients)
        assert found.estimate == pytest.approx(fit.params[place], rel=1e-4)
        assert found.upper - found.estimate == pytest.approx(reach * fit.bse[place], rel=1e-4)


def test_a_resample_of_one_class_defines_no_ranking():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    ranking = resampling.Ranking.of(labels, scores)
    # Only malignant cases, only benign ones, one of each, all.
    weights = np.array([labels, 1 - labels, [1, 1, 0, 0], np.ones(4)], dtype=float)
    for statistic, known in (
        (resampling.auroc_statistic(ranking), roc_auc_score(labels, scores)),
        (resampling.average_precision_statistic(ranking), average_precision_score(labels, scores)),
    ):
        np.testing.assert_allclose(statistic(weights), [np.nan, np.nan, 1.0, known])
    benign = resampling.Ranking.of(np.zeros(4, int), scores)
    for make in (resampling.auroc_statistic, resampling.average_precision_statistic):
        np.testing.assert_array_equal(make(benign)(weights), np.full(4, np.nan))


@pytest.mark.parametrize("undefined", [0, 1, 5])
def test_resamples_that_define_nothing_are_left_out_of_the_interval(undefined):
    values = np.linspace(0.5, 0.9, 100 - undefined)
    found = percentile_interval("AUROC", 0.7, np.concatenate([np.full(undefined, np.nan), values]))
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_over_5_percent_of_resamples_that_define_nothing_are_too_many():
    values = np.concatenate([np.full(6, np.nan), np.linspace(0.5, 0.9, 94)])
    with pytest.raises(UndefinedMetricError, match="AUROC: undefined on 6 of 100 resamples"):
        percentile_interval("AUROC", 0.7, values)


def test_shares_of_independent_cases_get_wilsons_interval():
    right = np.repeat([1, 0], [45, 5])
    interval = proportion_interval(right, np.arange(50))
    wilson = stats.binomtest(45, 50).proportion_ci(method="wilson")
    assert (interval.lower, interval.upper) == pytest.approx((wilson.low, wilson.high), abs=0.003)


def test_a_share_of_all_counts_patients_not_cases():
    interval = proportion_interval(np.ones(60), np.repeat(np.arange(20), 3))
    wilson = stats.binomtest(20, 20).proportion_ci(method="wilson")
    assert (interval.estimate, interval.upper) == (1.0, 1.0)
    assert interval.lower == pytest.approx(wilson.low)


def test_few_patients_widen_a_share_by_students_t():
    right, patients = np.tile([1, 1, 1, 0], 20), np.repeat(np.arange(8), 10)
    right[:10] = 0
    interval = proportion_interval(right, patients)
    deviations = np.array([(right[patients == each] - right.mean()).sum() for each in range(8)])
    variance = 8 / 7 * (deviations**2).sum() / 80**2
    effective = right.mean() * (1 - right.mean()) / variance * (stats.t.ppf(0.975, 79) / stats.t.ppf(0.975, 7)) ** 2
    far = stats.norm.ppf(0.975)
    # Wilson's limits are where the share lies that many standard errors away.
    for limit in (interval.lower, interval.upper):
        assert abs(right.mean() - limit) == pytest.approx(far * np.sqrt(limit * (1 - limit) / effective))


@pytest.mark.parametrize(
    ("right", "patients", "message"),
    [
        (np.tile([1, 0], 20), np.repeat(np.arange(7), 6)[:40], "7 patients; shown to hold from 8 on"),
        (np.r_[np.ones(59), 0], np.repeat(np.arange(20), 3), r"20 patients times 0.017, .* is 0.3"),
        (np.ones(60), np.repeat(np.arange(20), 3), "is 0.0"),
        (np.r_[np.ones(19), 0], np.arange(20), None),
        (np.tile([1, 0, 1], 20), np.repeat(np.arange(20), 3), None),
    ],
)
def test_a_share_of_few_patients_is_told_so(right, patients, message):
    caution = proportion_caution(right, patients)
    assert caution is None if message is None else re.search(message, caution)


def test_clustering_widens_a_share():
    right, alike = np.tile([1, 1, 0], 20), np.repeat([1, 1, 0], 20)
    patients = np.repeat(np.arange(20), 3)
    narrow, wide = proportion_interval(right, patients), proportion_interval(alike, patients)
    assert narrow.estimate == wide.estimate
    assert wide.upper - wide.lower > 1.3 * (narrow.upper - narrow.lower)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_every_interval_holds_its_estimate(seed, n):
    rng = np.random.default_rng(seed)
    labels, scores = np.r_[0, 1, rng.integers(0, 2, n - 2)], np.round(rng.random(n), 1)
    patients = rng.integers(0, 5, n)
    computed = (
        lambda: auroc_interval(labels, scores, patients),
        lambda: average_precision_interval(labels, scores, patients, rng=rng, resamples=50),
        lambda: proportion_interval(labels, patients),
        lambda: mean_interval((scores - labels) ** 2, patients, largest=1.0),
        lambda: calibration_slope_interval(labels, scores, patients),
        lambda: calibration_intercept_interval(labels, scores, patients),
        lambda: paired_auroc(labels, scores, -scores, patients).interval(),
    )
    for compute in computed:
        with contextlib.suppress(UndefinedMetricError):
            interval = compute()
            assert interval.lower <= interval.estimate <= interval.upper


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: auroc_interval([1, 1], [0.2, 0.3], [1, 2]), "all 2 cases are malignant"),
        (lambda: auroc_interval([0, 1, 1], [0.2, 0.3, 0.1], [1, 2, 2]), "1 patients have malignant"),
        (lambda: auroc_interval([0, 1], [0.2, 0.3], [1]), "one patient a case"),
        (lambda: mean_interval([0.1, 0.2], ["a", "a"]), "1 patient; expected at least 2"),
        (lambda: mean_interval([0.0, 0.0], ["a", "b"]), "a loss of 0"),
        (lambda: calibration_slope_interval([0, 1], [0.2, 0.3], ["a", "b"]), "2 patients; expected at least 3"),
        (lambda: Interval(0.5, 0.6, 0.4), "is not an interval"),
        (lambda: Interval(float("nan"), 0.1, 0.4), "is not an interval"),
    ],
)
def test_an_undefined_interval_is_an_error(compute, message):
    with pytest.raises(UndefinedMetricError, match=message):
        compute()


def test_a_statistic_that_many_resamples_do_not_define_is_refused():
    called_positive = np.zeros(LABELS.size)
    ppv = resampling.mean_statistic(LABELS.astype(float), called_positive)
    with pytest.raises(UndefinedMetricError, match="undefined on 50 of 50 resamples"):
        bootstrap_interval(ppv, "ppv", resamples=50, seed=0)


def test_too_few_patients_of_a_class_cannot_be_resampled():
    labels = np.r_[1, np.zeros(20)].astype(int)
    with pytest.raises(UndefinedMetricError, match="too few patients of a class"):
        average_precision_interval(
            labels, np.linspace(1, 0.5, 21) * (1 - 0.9 * labels), np.arange(21), rng=np.random.default_rng(0)
        )


def test_ranking_statistics_take_any_scores():
    logits = metrics.log_odds(PROBABILITIES) * 50
    statistic = resampling.auroc_statistic(resampling.Ranking.of(LABELS, logits))
    assert statistic(np.ones((1, LABELS.size)))[0] == pytest.approx(metrics.auroc(LABELS, PROBABILITIES))


def test_an_interval_reads_well():
    interval = Interval(0.9, 0.85, 0.94)
    assert str(interval) == "0.900 (0.850 to 0.940)"
    assert interval.contains(0.85)
    assert not interval.contains(0.95)
    assert interval.to_json()["level"] == 0.95
