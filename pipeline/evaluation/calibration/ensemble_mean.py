"""Estimate the logits of an ensemble's mean for cases that only one of its networks has not seen.

A model of several networks scores with the mean of their logits. Its calibrator, thresholds and refer zone are fitted
on cases that the networks have not seen, and most of these were left out by one network alone. Part of a network's
logit is its own error, of which the mean has less: fitted on single networks' logits, the mean's probabilities would be
underconfident, and its threshold too low. Where two networks have left out the same case, the difference of their
logits shows how large that error is, and the logits of single networks are moved towards the mean of their class, to
where the mean of all networks would lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import optimize

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.logistic import Recalibration, fit_recalibration

LEAST_PAIRS = 8
_STEEPEST = 3.0  # the mean's slope over a single network's, at most: with few pairs the estimate may be anything


@dataclass(frozen=True, eq=False)
class MeanLogits:
    """Logits of single networks, moved to where the mean of several would lie.

    Attributes:
        logits: shape (n,).
        factor: that their distance from the mean of their class was multiplied by; 1 changes nothing.
        pairs: cases that two networks have left out, which the factor rests on.
        networks: of which the model's logit is the mean.
        reason: why the factor is 1 although there are several networks; blank where it was estimated.
    """

    logits: FloatArray
    factor: float
    pairs: int
    networks: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the logits."""
        return {name: getattr(self, name) for name in ("networks", "factor", "pairs", "reason")}

    def describe(self) -> str:
        """In a few words; blank for a single network."""
        if self.networks == 1:
            return ""
        if self.reason:
            return f"as single networks say, not the mean of {self.networks}: {self.reason}"
        return (
            f"for the mean of {self.networks} networks: distance from the class mean x {self.factor:.3f}, "
            f"from {self.pairs} cases that two of them had left out"
        )


def as_mean_of(networks: int, logits: FloatArray, labels: IntArray, pairs: FloatArray) -> MeanLogits:
    """Move logits of single networks towards the mean of their class, to where the mean of several would lie.

    The slope of a calibrator of the mean follows from the pairs without their labels: the probability that a single
    network's calibrator gives a case is right on average over all cases with the same logit, so the calibrator of the
    mean of two is the one whose probability differs from it by nothing on average, nor in proportion to the logit.
    From one network to two the inverse of the slope falls by half of the part that is the networks' own error; of
    ``n`` networks by ``1 - 1/n`` of that part. The factor is the one whose logits have that slope.

    Args:
        networks: of which the model's logit is the mean.
        logits: each case by a network that had left it out, shape (n,).
        labels: 0 or 1, shape (n,).
        pairs: logits of the same case by two networks that had left it out, shape (m, 2).

    Returns:
        The logits unchanged, with the reason, where the factor cannot be estimated: fewer than 8 pairs, one class,
        separated classes, or a ranking that is no better than chance.
    """
    keep = partial(MeanLogits, logits, 1.0, len(pairs), networks)
    if networks == 1:
        return keep()
    if len(pairs) < LEAST_PAIRS:
        return keep(f"{len(pairs)} cases were left out by two networks, fewer than {LEAST_PAIRS}")
    try:
        single = fit_recalibration(logits, labels, fixed_slope=False)
        if single.slope <= 0.0:
            return keep("the networks do not rank malignant above benign")
        wanted = _slope_of_mean(networks, single, pairs)
        centers = np.array([logits[labels == label].mean() for label in (0, 1)])[labels]

        def excess(factor: float) -> float:
            drawn = centers + factor * (logits - centers)
            return fit_recalibration(drawn, labels, fixed_slope=False).slope / wanted - 1.0

        least = 1.0 / np.sqrt(networks)  # of networks that agree on nothing but the class
        if excess(1.0) >= 0.0:
            factor = 1.0
        elif excess(least) <= 0.0:
            factor = float(least)
        else:
            factor = float(optimize.brentq(excess, least, 1.0, xtol=1e-6))
    except UndefinedMetricError as error:
        return keep(str(error))
    return MeanLogits(centers + factor * (logits - centers), factor, len(pairs), networks)


def _slope_of_mean(networks: int, single: Recalibration, pairs: FloatArray) -> float:
    """Slope of a calibrator of the mean of so many networks, from that of one and from pairs (m, 2)."""
    two = _matched_slope(single, pairs)
    inverse = 1.0 / single.slope + (1.0 / two - 1.0 / single.slope) * 2.0 * (1.0 - 1.0 / networks)
    return min(max(1.0 / inverse if inverse > 0.0 else np.inf, single.slope), _STEEPEST * single.slope)


def _matched_slope(single: Recalibration, pairs: FloatArray) -> float:
    """Slope for the mean of two, whose probabilities agree over cases with those that the calibrator of one gives.

    Both the total of the probabilities and their product with the logits agree: the equations of a logistic regression,
    with a single network's probabilities in the place of labels; so the loss is convex.
    """
    mean = pairs.mean(axis=1)
    center, scale = float(mean.mean()), float(mean.std()) or 1.0
    probabilities = sigmoid(single.intercept + single.slope * pairs)  # (m, 2)
    total = float(probabilities.mean(axis=1).sum())
    product = float((probabilities * (pairs - center) / scale).mean(axis=1).sum())
    standard = (mean - center) / scale

    def loss(beta: FloatArray) -> tuple[float, FloatArray]:
        odds = beta[0] + beta[1] * standard
        chance = sigmoid(odds)
        gradient = np.array([chance.sum() - total, chance @ standard - product])
        return float(np.logaddexp(0.0, odds).sum() - beta[0] * total - beta[1] * product), gradient

    start = np.array([single.intercept + single.slope * center, single.slope * scale])
    limits = (0.1 * start[1], _STEEPEST * start[1])
    solution = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), limits])
    return float(solution.x[1]) / scale
