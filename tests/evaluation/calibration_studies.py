"""Simulated pairs of models on the same patients, the challenger's calibration wrong in a known way."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy import stats

from pipeline.evaluation.calibration.calibrator import logit, sigmoid
from pipeline.evaluation.calibration.curve import calibration_distances, fit_calibration_curve
from pipeline.evaluation.calibration.outcome import SampleSize, calibration_outcome
from pipeline.evaluation.gate.conditions import _calibration
from pipeline.evaluation.intervals.clustered import calibration_intercept_interval, calibration_slope_interval

_GRID = np.linspace(-60.0, 60.0, 24_001)
# Log odds that are true where the model's are x.
TRUTHS = {
    "perfect": lambda x: x,
    "intercept 0.1": lambda x: x + 0.1,
    "intercept 0.4": lambda x: x + 0.4,
    "slope 0.9": lambda x: 0.9 * x,
    "slope 0.6": lambda x: 0.6 * x,
    "slope 1.5": lambda x: 1.5 * x,
    "bent": lambda x: 1.25 * x + 1.1 * np.cos(1.1 * x) - 0.53,  # slope 1.01, intercept -0.01, ICI 0.073
}


def simulate(rng, patients, each, truth, *, within=0.7):
    """Labels, the champion's and the challenger's probabilities, and patients.

    A probit model: the latent malignancy is a part that both models see, one that each sees alone, and a rest. The
    champion's probabilities are right given what it sees; so are the challenger's, until ``truth`` is undone.
    """
    who = np.repeat(np.arange(patients), each)

    def part(variance):
        shared = np.sqrt(within) * rng.normal(size=patients)[who] + np.sqrt(1 - within) * rng.normal(size=who.size)
        return np.sqrt(variance) * (shared if each > 1 else rng.normal(size=who.size))

    both, first, second, rest = part(2.0), part(0.5), part(0.5), part(1.0)
    labels = (both + first + second + rest > 0).astype(int)
    champion, right = (stats.norm.cdf((both + own) / np.sqrt(1.5)) for own in (first, second))
    return labels, champion, sigmoid(np.interp(logit(right), truth(_GRID), _GRID)), who


def judge(labels, probabilities, who, *, rng, resamples=150):
    """The outcome that an evaluation would have."""
    study = labels, probabilities, who
    intervals, undefined = {}, {}
    for name, compute in (
        ("calibration_slope", calibration_slope_interval),
        ("calibration_intercept", calibration_intercept_interval),
    ):
        intervals[name] = compute(*study)
    curve = fit_calibration_curve(*study, rng=rng, resamples=resamples)
    intervals |= calibration_distances(curve, probabilities)
    counts = SampleSize(int(who[-1]) + 1, labels.size, int(labels.sum()))
    return calibration_outcome(intervals, undefined, counts)


def error_rates(*, studies, patients, each, truth, seed=0):
    """Shares of studies that are shown, not shown and refuted, and of those whose challenger the gate's condition
    lets pass."""
    found = Counter()
    for number in range(studies):
        rng = np.random.default_rng([seed, number])
        labels, champion, challenger, who = simulate(rng, patients, each, truth)
        outcome = judge(labels, challenger, who, rng=rng)
        found[outcome.verdict] += 1
        beside = judge(labels, champion, who, rng=rng) if outcome.in_doubt else outcome  # asked only then
        found["passes"] += _calibration(outcome, beside).holds
    return {name: found[name] / studies for name in ("shown", "not shown", "refuted", "passes")}
