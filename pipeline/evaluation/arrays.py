"""Input checks that every statistic makes of its labels, scores and patient ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError, UndefinedMetricError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def as_labels(labels: npt.ArrayLike, *, error: type[PipelineError] = UndefinedMetricError) -> IntArray:
    """Labels as integers, shape (n,).

    Raises:
        PipelineError: of type ``error``, when there are none, or a value is not 0 or 1.
    """
    try:
        values = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError):
        raise error("labels: hold a value that is not a number; expected 0 or 1; leave unlabelled cases out") from None
    if values.ndim != 1 or values.size == 0:
        raise error(f"labels: have shape {values.shape}; expected one label a case and at least one case")
    wrong = ~np.isin(values, (0.0, 1.0))
    if wrong.any():
        raise error(f"labels: hold {values[wrong][0]:g}; expected 0 or 1; leave unlabelled cases out")
    return values.astype(np.int64)


def as_scores(
    scores: npt.ArrayLike,
    labels: IntArray | None = None,
    *,
    name: str = "scores",
    error: type[PipelineError] = UndefinedMetricError,
) -> FloatArray:
    """Finite scores, shape (n,), as many as ``labels`` when those are given.

    Raises:
        PipelineError: of type ``error``, when a score is not finite or their number is not that of the labels.
    """
    values = np.asarray(scores, dtype=np.float64)
    if labels is not None and values.shape != labels.shape:
        raise error(f"{name}: have shape {values.shape}, the labels {labels.shape}; expected one value a case")
    if not np.isfinite(values).all():
        raise error(
            f"{name}: {int((~np.isfinite(values)).sum())} of {values.size} are not finite; "
            "expected finite numbers; leave those cases out"
        )
    return values


def as_probabilities(probabilities: npt.ArrayLike, labels: IntArray | None = None) -> FloatArray:
    """Probabilities in [0, 1], shape (n,).

    Raises:
        UndefinedMetricError: when a value lies outside [0, 1].
    """
    values = as_scores(probabilities, labels, name="probabilities")
    if values.size and (values.min() < 0.0 or values.max() > 1.0):
        worst = values[np.argmax(np.abs(values - 0.5))]
        raise UndefinedMetricError(f"probabilities: hold {worst:g}; expected [0, 1]; pass probabilities, not logits")
    return values


def as_labels_and_probabilities(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Labels and as many probabilities, each shape (n,).

    Raises:
        UndefinedMetricError: as ``as_labels`` and ``as_probabilities``.
    """
    truth = as_labels(labels)
    return truth, as_probabilities(probabilities, truth)


def as_groups(patients: npt.ArrayLike, values: npt.NDArray[Any]) -> IntArray:
    """Patient ids as numbers 0 … patients-1, shape (n,), in order of the ids.

    Args:
        patients: patient id of each case, shape (n,).
        values: any array of one value a case, shape (n,).

    Raises:
        UndefinedMetricError: when there are not as many ids as values.
    """
    ids = np.asarray(patients)
    if ids.shape != values.shape:
        raise UndefinedMetricError(
            f"patients: have shape {ids.shape}, the labels {values.shape}; expected one patient a case"
        )
    ids = ids.astype(str) if ids.dtype.kind == "O" else ids
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def patients_of_each_class(labels: IntArray, patients: npt.NDArray[Any]) -> tuple[int, int]:
    """How many patients have malignant, and how many have benign, cases."""
    malignant, benign = (int(np.unique(patients[labels == label]).size) for label in (1, 0))
    return malignant, benign


def require_both_classes(labels: IntArray, *, what: str, error: type[PipelineError] = UndefinedMetricError) -> None:
    """Refuse labels of one class only.

    Raises:
        PipelineError: of type ``error``.
    """
    positive = int(labels.sum())
    if positive == 0 or positive == labels.size:
        only = "malignant" if positive else "benign"
        raise error(f"{what}: all {labels.size} cases are {only}; expected both classes; add cases of the other class")
