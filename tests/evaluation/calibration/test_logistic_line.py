"""The one logistic regression that Platt's calibrator and the calibration slope share."""

import numpy as np
import pytest
import statsmodels.api as sm

from pipeline.evaluation.calibration.fit import fit_platt
from pipeline.evaluation.calibration.logistic import fit_line, fit_recalibration, separated

RNG = np.random.default_rng(5)
SCORES = RNG.normal(size=200)
LABELS = (RNG.random(200) < 1 / (1 + np.exp(-1.5 * SCORES + 0.4))).astype(np.int64)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (4000.0, 0.0), (0.001, 12.0)])
def test_the_line_is_statsmodels_logit_on_any_scale(scale, shift):
    line = fit_line(SCORES * scale + shift, LABELS)
    intercept, slope = sm.Logit(LABELS, sm.add_constant(SCORES)).fit(disp=0, tol=1e-14).params
    assert line.slope * scale == pytest.approx(slope, rel=1e-9)
    assert line.intercept + line.slope * shift == pytest.approx(intercept, rel=1e-8)


def test_platt_and_the_calibration_slope_are_the_same_line():
    line = fit_line(SCORES, LABELS)
    assert fit_platt(SCORES, LABELS).parameters == {"slope": line.slope, "intercept": line.intercept}
    assert fit_recalibration(SCORES, LABELS, fixed_slope=False) == line


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.0, 1.0, 2.0, 3.0], True), ([3.0, 2.0, 1.0, 0.0], True), ([0.0, 1.0, 1.0, 2.0], True), ([0, 2, 1, 3], False)],
)
def test_separated_classes_are_told_in_either_direction(scores, expected):
    assert separated(np.asarray(scores, dtype=float), np.array([0, 0, 1, 1])) is expected
