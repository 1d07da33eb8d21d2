"""Compare the classifier at centres that the detector found with the classifier at the true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.evaluate import settle
from pipeline.evaluation.intervals.bootstrap import auroc_interval, paired_auroc_difference
from pipeline.evaluation.intervals.interval import Interval


@dataclass(frozen=True)
class SecondStage:
    """Performance of the classifier on lesions that were found, at both centres.

    Attributes:
        n_lesions: labelled lesions that were hit and scored at both centres.
        n_patients: patients they come from.
        n_malignant: malignant ones.
        intervals: ``auroc_found``, ``auroc_true`` and ``auroc_difference`` (found less true, paired): those defined.
        undefined: the others, with the reason.
    """

    n_lesions: int
    n_patients: int
    n_malignant: int
    intervals: Mapping[str, Interval]
    undefined: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{name: getattr(self, name) for name in ("n_lesions", "n_patients", "n_malignant")},
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "undefined": dict(self.undefined),
        }


def judge_second_stage(
    labels: npt.ArrayLike,
    at_found: npt.ArrayLike,
    at_true: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> SecondStage:
    """Judge the classifier's probabilities of the same lesions at both centres.

    Lesions that the detector missed are left out.

    Args:
        labels: 1 = malignant, 0 = benign, shape (n,).
        at_found: probability of malignancy at the hit's centre, shape (n,).
        at_true: probability of malignancy at the lesion's centre, shape (n,).
        patients: patient id of each lesion, shape (n,).
        resamples: patient-level bootstrap samples, of the difference.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    statistics: dict[str, Callable[[], Interval]] = {
        "auroc_found": lambda: auroc_interval(labels, at_found, patients),
        "auroc_true": lambda: auroc_interval(labels, at_true, patients),
        "auroc_difference": lambda: paired_auroc_difference(
            labels, at_found, at_true, patients, rng=rng, resamples=resamples
        ),
    }
    intervals, undefined = settle(statistics)
    truth = np.asarray(labels, dtype=np.int64)
    return SecondStage(
        n_lesions=truth.size,
        n_patients=int(np.unique(np.asarray(patients)).size),
        n_malignant=int(truth.sum()),
        intervals=intervals,
        undefined=undefined,
    )
