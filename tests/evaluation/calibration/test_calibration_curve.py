"""The smooth calibration curve, its band, and ICI, E50 and E90, against other libraries and known truths."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from studies import predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.calibration import curve as calibration_curve
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.curve import CalibrationCurve, calibration_distances, fit_calibration_curve

CASES = predictions(900, seed=8)
LABELS, PROBABILITIES, PATIENTS = CASES.labels, CASES.probabilities, CASES.patients
ODDS = np.log(PROBABILITIES / (1 - PROBABILITIES))


def fit(labels=LABELS, probabilities=PROBABILITIES, patients=PATIENTS, *, seed=0, **settings):
    return fit_calibration_curve(labels, probabilities, patients, rng=np.random.default_rng(seed), **settings)


def harrell(odds, knots):
    """Restricted cubic spline by truncated powers (Harrell, 2015, section 2.4.5), with a constant, shape (n, k)."""
    cube = np.maximum(odds[:, None] - knots, 0.0) ** 3
    last, before = knots[-1], knots[-2]
    columns = [np.ones_like(odds), odds]
    for place in range(knots.size - 2):
        columns.append(
            cube[:, place]
            - cube[:, -2] * (last - knots[place]) / (last - before)
            + cube[:, -1] * (before - knots[place]) / (last - before)
        )
    return np.column_stack(columns)


def test_without_its_ridge_the_curve_is_statsmodels_logit_on_harrells_spline(monkeypatch):
    monkeypatch.setattr(calibration_curve, "_RIDGE", 0.0)
    curve = fit()
    design = harrell(ODDS, curve.knots)
    scale = np.abs(design).max(axis=0)
    known = sm.Logit(LABELS, design / scale).fit(disp=False, maxiter=200)
    assert curve.at(PROBABILITIES) == pytest.approx(known.predict(design / scale), abs=1e-6)


def test_the_ridge_is_a_prior_of_2_in_log_odds_around_perfect_calibration_at_each_knot():
    few = slice(0, 60)
    curve = fit(LABELS[few], PROBABILITIES[few], PATIENTS[few])
    design = calibration_curve._basis(ODDS[few], curve.knots)

    def loss(beta):
        fitted = np.clip(sigmoid(design @ beta), 1e-12, 1 - 1e-12)
        likelihood = stats.bernoulli.logpmf(LABELS[few], fitted).sum()
        return -likelihood - stats.norm.logpdf(beta, curve.knots, 2.0).sum()

    known = optimize.minimize(loss, curve.knots, method="BFGS", options={"gtol": 1e-6}).x
    assert curve.coefficients == pytest.approx(known, abs=1e-3)


@pytest.mark.parametrize(
    ("rarer", "shares"),
    [
        (49, (0.10, 0.50, 0.90)),
        (50, (0.05, 0.35, 0.65, 0.95)),
        (199, (0.05, 0.35, 0.65, 0.95)),
        (200, (0.05, 0.275, 0.50, 0.725, 0.95)),
    ],
)
def test_knots_are_harrells_quantiles_and_their_number_follows_the_rarer_class(rarer, shares):
    for malignant in (rarer, 500 - rarer):
        labels = np.repeat([1, 0], [malignant, 500 - malignant])
        odds = np.random.default_rng(0).permutation(500) / 100 - 2.5
        curve = fit(labels, sigmoid(odds), np.arange(500), resamples=1)
        assert curve.knots == pytest.approx(np.quantile(np.sort(odds), shares, method="inverted_cdf"))


def test_beyond_the_outer_knots_the_log_odds_are_a_line_and_within_them_smooth():
    curve = fit()
    ends = np.r_[curve.knots[0] - np.arange(3.0), curve.knots[-1] + np.arange(3.0)]
    values = np.log(curve.at(sigmoid(ends)) / (1 - curve.at(sigmoid(ends))))
    assert values[0] - values[1] == pytest.approx(values[1] - values[2])
    assert values[4] - values[3] == pytest.approx(values[5] - values[4])
    near = curve.knots[:, None] + np.array([-1e-4, 0.0, 1e-4])
    found = calibration_curve._basis(near.ravel(), curve.knots).reshape(curve.knots.size, 3, -1)
    assert np.abs(found[:, 0] - 2 * found[:, 1] + found[:, 2]).max() < 1e-6  # no kink at a knot


def test_few_distinct_probabilities_are_a_line_or_nothing():
    labels = np.tile([0, 1, 0, 1, 1], 20)
    two = np.where(np.arange(100) % 7 == 0, 0.3, 0.7)
    curve = fit(labels, two, np.arange(100))
    assert curve.knots.size == 2
    for value in (0.3, 0.7):
        assert curve.at(np.array([value]))[0] == pytest.approx(labels[two == value].mean(), abs=0.05)
    # One value for almost all cases: the quantiles are one knot, the outermost probabilities are two.
    rare = np.where(np.arange(100) == 3, 0.3, 0.7)
    assert fit(labels, rare, np.arange(100)).knots == pytest.approx(np.log([3 / 7, 7 / 3]))


def test_resampled_curves_spread_as_statsmodels_clustered_covariance(monkeypatch):
    monkeypatch.setattr(calibration_curve, "_RIDGE", 0.0)
    curve = fit(resamples=4000)
    groups = as_groups(PATIENTS, LABELS)
    design = calibration_curve._basis(ODDS, curve.knots)
    known = sm.GLM(LABELS, design, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    spread = np.cov(curve.resampled.T)
    error = np.sqrt(np.diag(known.cov_params()))
    assert np.sqrt(np.diag(spread)) == pytest.approx(error, rel=0.06)
    assert spread / np.outer(error, error) == pytest.approx(known.cov_params() / np.outer(error, error), abs=0.06)


def test_resampled_curves_are_close_to_refits_on_resampled_patients():
    curve = fit(resamples=1000)
    rng, groups = np.random.default_rng(3), as_groups(PATIENTS, LABELS)
    members = [np.flatnonzero(groups == each) for each in range(groups.max() + 1)]
    grid, refits = np.array([0.1, 0.3, 0.5, 0.7, 0.9]), []
    for _ in range(200):
        drawn = np.concatenate([members[each] for each in rng.integers(0, len(members), len(members))])
        design = calibration_curve._basis(ODDS[drawn], curve.knots)
        beta = calibration_curve._fit_near_diagonal(design, LABELS[drawn], curve.knots)
        refits.append(sigmoid(calibration_curve._basis(np.log(grid / (1 - grid)), curve.knots) @ beta))
    band = curve.band(grid)
    assert band.upper - band.lower == pytest.approx(4 * np.std(refits, axis=0), rel=0.2)
    assert ((band.lower <= band.y) & (band.y <= band.upper)).all()


def flat(share, spread):
    """A curve at ``share`` whatever the probability, with resampled ones around it."""
    odds = np.log(np.array([share, *spread]) / (1 - np.array([share, *spread])))
    return CalibrationCurve(np.array([-3.0, 3.0]), np.full(2, odds[0]), np.repeat(odds[1:, None], 2, axis=1))


def test_distances_are_mean_median_and_90th_percentile_of_the_gap():
    values = np.linspace(0.0, 1.0, 401)
    found = calibration_distances(flat(0.2, [0.2, 0.2]), values)
    gaps = np.abs(values - 0.2)
    assert found["ici"].estimate == pytest.approx(gaps.mean())
    assert found["e50"].estimate == pytest.approx(np.median(gaps))
    assert found["e90"].estimate == pytest.approx(np.quantile(gaps, 0.9))


def test_the_upper_limit_is_the_resamples_and_the_lower_takes_off_what_noise_makes():
    spread = np.linspace(0.2, 0.4, 1001)
    found = calibration_distances(flat(0.3, spread), np.full(10, 0.8))
    for interval in found.values():
        assert interval.estimate == pytest.approx(0.5)
        assert interval.upper == pytest.approx(np.quantile(0.8 - spread, 0.975))
        assert interval.lower == pytest.approx(0.5 - np.quantile(np.abs(spread - 0.3), 0.975))
    near = calibration_distances(flat(0.3, spread), np.full(10, 0.31))
    assert all(interval.lower == 0.0 for interval in near.values())


def test_many_cases_are_stood_for_by_1000_of_them():
    values = np.random.default_rng(0).beta(1, 5, 50_001)
    curve = flat(0.2, [0.1, 0.3])
    found = calibration_distances(curve, values)
    assert found["ici"].estimate == pytest.approx(np.abs(values - 0.2).mean(), abs=1e-4)
    assert found["e90"].estimate == pytest.approx(np.quantile(np.abs(values - 0.2), 0.9), abs=1e-3)
    assert calibration_distances(curve, values[:1000])["e50"].estimate == pytest.approx(
        np.median(np.abs(values[:1000] - 0.2)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "probabilities", "patients", "message"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], [0, 1, 2], "calibration curve: all 3 cases are benign"),
        ([0, 1, 0], [0.2, 0.2, 0.2], [0, 1, 2], "calibration curve: all 3 probabilities are equal"),
        ([0, 1, 0], [0.1, 0.2, 0.3], [0, 1, 1], "calibration curve: 2 patients; expected at least 3"),
    ],
)
def test_the_undefined_is_an_error(labels, probabilities, patients, message):
    with pytest.raises(UndefinedMetricError, match=message):
        fit(np.array(labels), np.array(probabilities), patients)


def coverage(*, studies, cases, each, truth, seed=0):
    """Share of studies whose interval holds the true distance (ICI, E50, E90), and the true curve at 0.1, 0.5, 0.9."""
    rng, who = np.random.default_rng(seed), np.repeat(np.arange(cases // each), each)
    patients = cases // each

    def alike(within):
        own = rng.normal(size=who.size)
        return np.sqrt(within) * rng.normal(size=patients)[who] + np.sqrt(1 - within) * own

    positions = 2.0 * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    gaps = np.abs(sigmoid(truth(positions)) - sigmoid(positions))
    wanted = {"ici": gaps.mean(), "e50": np.median(gaps), "e90": np.quantile(gaps, 0.9)}
    grid = np.array([0.1, 0.5, 0.9])
    right = sigmoid(truth(np.log(grid / (1 - grid))))
    held = []
    for _ in range(studies):
        odds = 2.0 * alike(0.7)
        labels = (stats.norm.cdf(alike(0.7)) < sigmoid(truth(odds))).astype(int)
        curve = fit_calibration_curve(labels, sigmoid(odds), who, rng=rng, resamples=300)
        found, band = calibration_distances(curve, sigmoid(odds)), curve.band(grid)
        inside = (band.lower <= right) & (right <= band.upper)
        held.append([*(found[name].contains(value) for name, value in wanted.items()), *inside])
    return np.mean(held, axis=0)


def test_distances_of_a_perfect_and_of_an_overconfident_model_are_covered():
    for slope in (1.0, 0.6):
        found = coverage(studies=120, cases=500, each=3, truth=lambda odds, slope=slope: slope * odds)
        assert (found >= 0.88).all()  # 3 standard errors of the simulation (2 % each) below 0.95


@pytest.mark.campaign
def test_distances_are_covered():
    truths = {
        "perfect": lambda odds: odds,
        "intercept 0.4": lambda odds: odds + 0.4,
        "slope 0.6": lambda odds: 0.6 * odds,
        "wave 0.8": lambda odds: odds + 0.8 * np.sin(odds),
    }
    print("\n| truth | cases | a patient | ICI | E50 | E90 | curve at 0.1 | 0.5 | 0.9 |\n" + "|---" * 9 + "|")
    for name, truth in truths.items():
        for cases, each in ((80, 1), (168, 1), (168, 3), (500, 3), (2000, 3)):
            found = coverage(studies=500, cases=cases, each=each, truth=truth)
            row = " | ".join(f"{share:.3f}" for share in found)
            print(f"| {name} | {cases} | {each} | {row} |", flush=True)
            assert found[0] >= 0.93
            assert (found >= 0.75).all()
