"""Probabilities of exactly 0 or 1, whose log odds are infinite: the effect of the finite values used instead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray, as_labels, as_probabilities
from pipeline.evaluation.calibration.logistic import fit_recalibration
from pipeline.evaluation.metrics import EDGE, log_odds


def saturation_caution(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> str | None:
    """How many probabilities are 0 or 1 to within rounding, how many of them wrongly, and the slope without them.

    A probability of 0 or 1 is taken for one that lies 2.2e-16 away, whose log odds are -36 or 36. One malignant case
    at 0, far out on that scale, can move the slope more than all others together.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).

    Returns:
        A few words, or None without such a case.

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].
    """
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    certain = (values <= EDGE) | (values >= 1.0 - EDGE)
    if not certain.any():
        return None
    wrong = int((certain & ((values > 0.5) != (truth == 1))).sum())
    return (
        f"{int(certain.sum())} of {truth.size} probabilities are 0 or 1, {wrong} of them wrongly, and count with log "
        f"odds of {-_FARTHEST:.0f} or {_FARTHEST:.0f}; without them {_slope(truth[~certain], values[~certain])}"
    )


_FARTHEST = float(log_odds(np.ones(1))[0])


def _slope(labels: IntArray, probabilities: FloatArray) -> str:
    if not labels.size:
        return "no case is left"
    try:
        fit = fit_recalibration(log_odds(probabilities), labels, fixed_slope=False)
    except UndefinedMetricError as error:
        return f"the slope is undefined ({error})"
    return f"the slope is {fit.slope:.2f}"
