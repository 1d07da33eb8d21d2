"""O:E and the scaled Brier score against statsmodels, the jackknife and the slow bootstrap."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from studies import predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.intervals.clustered import observed_expected_interval, scaled_brier_interval

CASES = predictions(300, seed=3)
STUDY = CASES.labels, CASES.probabilities, CASES.patients
GROUPS = as_groups(CASES.patients, CASES.labels)
PATIENTS = int(GROUPS.max()) + 1


def jackknife_error(statistic):
    """Standard error of a statistic of labels and probabilities, by leaving out one patient at a time."""
    labels, probabilities, _ = STUDY
    without = [statistic(labels[each != GROUPS], probabilities[each != GROUPS]) for each in range(PATIENTS)]
    return np.sqrt((PATIENTS - 1) / PATIENTS * np.sum((without - np.mean(without)) ** 2))


def log_ratio(labels, probabilities):
    return np.log(labels.sum() / probabilities.sum())


def log_loss_ratio(labels, probabilities):
    return np.log(np.mean((probabilities - labels) ** 2) / labels.var())


def test_observed_over_expected_has_the_clustered_error_of_statsmodels_poisson():
    labels, probabilities, patients = STUDY
    found = observed_expected_interval(labels, probabilities, patients)
    # A Poisson regression on a constant, with the expected counts as exposure, estimates the logarithm of O:E.
    fit = sm.GLM(labels, np.ones(labels.size), family=sm.families.Poisson(), exposure=probabilities).fit(
        cov_type="cluster", cov_kwds={"groups": GROUPS, "use_correction": False}
    )
    reach = stats.t.ppf(0.975, PATIENTS - 1) * fit.bse[0] * np.sqrt(PATIENTS / (PATIENTS - 1))
    assert found.estimate == pytest.approx(labels.sum() / probabilities.sum())
    assert (found.lower, found.upper) == pytest.approx(tuple(np.exp(fit.params[0] + np.array([-reach, reach]))))


def test_scaled_brier_score_is_one_less_the_ratio_with_the_jackknifes_error():
    labels, probabilities, patients = STUDY
    found = scaled_brier_interval(labels, probabilities, patients)
    prevalence = labels.mean()
    ratio = np.mean((probabilities - labels) ** 2) / np.mean((prevalence - labels) ** 2)
    assert found.estimate == pytest.approx(1 - ratio)
    reach = stats.t.ppf(0.975, PATIENTS - 1) * jackknife_error(log_loss_ratio)
    assert np.log((1 - found.lower) / ratio) == pytest.approx(reach, rel=0.02)
    assert np.log(ratio / (1 - found.upper)) == pytest.approx(reach, rel=0.02)


def test_the_jackknife_agrees_about_observed_over_expected():
    found = observed_expected_interval(*STUDY)
    reach = np.log(found.upper / found.estimate)
    assert reach == pytest.approx(stats.t.ppf(0.975, PATIENTS - 1) * jackknife_error(log_ratio), rel=0.02)


def test_two_patients_get_bessels_factor_and_one_degree_of_freedom():
    # By hand: O = 2, E = 2, so that the parts are (y - p) / 2, whose sums by patient are 0.1 and -0.1.
    labels, probabilities, patients = [1, 0, 1, 0], [0.6, 0.2, 0.8, 0.4], ["a", "a", "b", "b"]
    found = observed_expected_interval(labels, probabilities, patients)
    reach = stats.t.ppf(0.975, 1) * np.sqrt(2.0 * (0.1**2 + 0.1**2))
    assert (found.estimate, found.upper) == pytest.approx((1.0, np.exp(reach)))


def test_a_probability_of_the_prevalence_for_all_is_worth_nothing():
    labels = np.repeat([0, 1], [30, 10])
    found = scaled_brier_interval(labels, np.full(40, 0.25), np.arange(40))
    assert found.estimate == pytest.approx(0.0)
    assert scaled_brier_interval(labels, np.full(40, 0.9), np.arange(40)).upper < 0.0
    assert scaled_brier_interval(labels, np.where(labels, 0.9, 0.1), np.arange(40)).lower > 0.5


@pytest.mark.parametrize(
    ("compute", "labels", "probabilities", "patients", "message"),
    [
        (observed_expected_interval, [0, 0], [0.1, 0.2], [0, 1], "O:E: 0 malignant cases observed, 0.3 expected"),
        (observed_expected_interval, [0, 1], [0.0, 0.0], [0, 1], "O:E: 1 malignant cases observed, 0 expected"),
        (observed_expected_interval, [0, 1], [0.1, 0.2], [0, 0], "O:E: 1 patient; expected at least 2"),
        (scaled_brier_interval, [0, 0], [0.1, 0.2], [0, 1], "all 2 cases are benign"),
        (scaled_brier_interval, [0, 1], [0.0, 1.0], [0, 1], "every case has a loss of 0"),
        (scaled_brier_interval, [0, 1], [0.1, 0.2], [0, 0], "scaled Brier score: 1 patient; expected at least 2"),
    ],
)
def test_the_undefined_is_an_error(compute, labels, probabilities, patients, message):
    with pytest.raises(UndefinedMetricError, match=message):
        compute(labels, probabilities, patients)
