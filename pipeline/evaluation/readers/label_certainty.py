"""Results by label certainty, where readers' ratings exist: with doubtful cases excluded or relabelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import UsageError
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.subgroups import Subgroup, judge_subgroup

NEAR = 1.0  # rating points from the middle within which a label is near to it


@dataclass(frozen=True)
class RatingScale:
    """The readers' scale.

    Attributes:
        column: of the predictions.
        middle: the rating that is neither benign nor malignant.
    """

    column: str
    middle: float


def evaluate_by_certainty(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    scale: RatingScale,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Judge the same threshold with doubtful cases excluded, counted benign, counted malignant, and by distance.

    Args:
        predictions: one row a case; an indeterminate case has no label, or the middle rating.
        operating_point: chosen elsewhere, on the calibration split.
        scale: the readers' scale.
        resamples: as for ``evaluate``.
        seed: as for ``evaluate``.

    Returns:
        In order: indeterminate excluded, and where there are such cases, counted benign and counted malignant; then
        near and far from the middle.

    Raises:
        UsageError: when there is no such column, or a rating is no number.
    """
    if scale.column not in predictions.frame.columns:
        raise UsageError(
            f"label certainty: predictions have no column {scale.column!r}; keep the readers' ratings in it"
        )
    try:
        ratings = pd.to_numeric(predictions.frame[scale.column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise UsageError(f"label certainty: column {scale.column!r} holds text; expected ratings as numbers") from None
    doubtful = ratings == scale.middle
    labelled = predictions.frame["label"].notna().to_numpy()
    sure = labelled & ~doubtful
    frame = predictions.frame
    parts = {"indeterminate excluded": frame[sure]}
    if doubtful.any():
        for name, label in (("indeterminate counted benign", 0), ("indeterminate counted malignant", 1)):
            parts[name] = frame.assign(label=frame["label"].mask(doubtful, label))[sure | doubtful]
    distance = np.abs(ratings - scale.middle)
    parts[f"under {NEAR:g} from the middle"] = frame[sure & (distance < NEAR)]
    parts[f"{NEAR:g} or more from the middle"] = frame[sure & (distance >= NEAR)]
    return tuple(
        judge_subgroup(
            ("label certainty", name),
            Predictions(part.reset_index(drop=True)),
            operating_point=operating_point,
            resamples=resamples,
            seed=seed,
        )
        for name, part in parts.items()
        if len(part)
    )
