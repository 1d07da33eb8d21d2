"""Comparison of a model with a panel of readers who scored the same cases: multi-reader multi-case analysis.

Obuchowski and Rockette's method with Hillis' degrees of freedom. With readers as a sample of all readers, the
variance between them is part of the uncertainty; with fixed readers it is not.

Source: Obuchowski & Rockette, 1995; Hillis, 2007 (Statistics in Medicine 26:596) for a single modality, applied to each
reader's difference from the model, as for stand-alone algorithms in Hillis & Schartz, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, as_groups, as_labels, as_scores, require_both_classes
from pipeline.evaluation.intervals import delong
from pipeline.evaluation.intervals.interval import Interval, normal_quantile, t_quantile
from pipeline.evaluation.predictions import Predictions

_FEWEST_READERS = 2
_NO_VARIANCE = 1e-12  # a variance below it is 0 but for rounding


@dataclass(frozen=True)
class ReaderAuroc:
    """One reader's AUROC, and the model's less it."""

    reader: str
    auroc: float
    gain: float


@dataclass(frozen=True)
class ReaderStudy:
    """Result of the comparison.

    Attributes:
        n_cases: labelled cases that the model and every reader scored.
        n_patients: of them.
        n_positive: malignant ones.
        left_out: labelled cases that a reader did not score.
        not_judged: cases that readers scored and that are not judged, as those of another split.
        readers: each reader.
        model: the model's AUROC on these cases.
        average: mean of the readers' AUROCs, readers as a sample.
        gain: the model's AUROC less the readers' mean, readers as a sample.
        gain_fixed: the same for these readers alone, on cases like these.
        gain_fixed_cases: the same for readers like these, on these cases alone.
        degrees_of_freedom: Hillis', of ``gain``.
    """

    n_cases: int
    n_patients: int
    n_positive: int
    left_out: int
    not_judged: int
    readers: tuple[ReaderAuroc, ...]
    model: float
    average: Interval
    gain: Interval
    gain_fixed: Interval
    gain_fixed_cases: Interval
    degrees_of_freedom: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class PanelMean:
    """Mean of a figure over readers.

    Attributes:
        random: with readers and cases as samples of all readers and cases.
        fixed: for these readers alone, cases as a sample.
        fixed_cases: for these cases alone, readers as a sample; with r - 1 degrees of freedom.
        degrees_of_freedom: of ``random``.
    """

    random: Interval
    fixed: Interval
    fixed_cases: Interval
    degrees_of_freedom: float


def panel_mean(values: npt.ArrayLike, covariance: npt.ArrayLike) -> PanelMean:
    """Mean over readers of an AUROC, or of a difference of AUROCs, on the same random cases.

    Args:
        values: one a reader, shape (readers,).
        covariance: of the values over samples of cases, shape (readers, readers).

    Raises:
        UndefinedMetricError: with fewer than two readers, or when nothing varies.

    Source: Hillis, 2007, for a single modality: variance (MS(R) + r max(Cov2, 0)) / r with
    (MS(R) + r max(Cov2, 0))^2 / (MS(R)^2 / (r - 1)) degrees of freedom; fixed readers (Var + (r - 1) max(Cov2, 0)) / r;
    fixed cases MS(R) / r.
    """
    figures, over_cases = np.asarray(values, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    readers = figures.size
    if readers < _FEWEST_READERS:
        raise UndefinedMetricError(f"reader study: {readers} readers; expected at least {_FEWEST_READERS}")
    own = float(np.diag(over_cases).mean())
    shared = max(float((over_cases.sum() - np.trace(over_cases)) / (readers * (readers - 1))), 0.0)
    between = float(figures.var(ddof=1))
    both_sources = between + readers * shared
    of_these = own + (readers - 1) * shared
    if min(both_sources, of_these) <= _NO_VARIANCE:
        raise UndefinedMetricError("reader study: readers and cases show no spread to measure; give more cases")
    freedom = both_sources**2 / (between**2 / (readers - 1)) if between > 0.0 else np.inf
    mean = float(figures.mean())
    far = t_quantile(freedom) if np.isfinite(freedom) else normal_quantile()
    reach = far * float(np.sqrt(both_sources / readers))
    fixed = normal_quantile() * float(np.sqrt(of_these / readers))
    these_cases = t_quantile(readers - 1) * float(np.sqrt(between / readers))
    return PanelMean(
        Interval(mean, mean - reach, mean + reach, method="Obuchowski-Rockette, random readers"),
        Interval(mean, mean - fixed, mean + fixed, method="Obuchowski-Rockette, fixed readers"),
        Interval(mean, mean - these_cases, mean + these_cases, method="Obuchowski-Rockette, fixed cases"),
        float(min(freedom, 1e9)),
    )


def auroc_covariance(
    labels: npt.ArrayLike, scores: Sequence[npt.ArrayLike], patients: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """AUROCs of several scores on the same cases, shape (k,), and their covariance by patient, shape (k, k).

    Raises:
        UndefinedMetricError: with one class, or fewer than two patients with malignant or with benign cases.

    Source: Obuchowski, 1997; DeLong et al., 1988, where every patient has one case.
    """
    truth = as_labels(labels)
    groups = as_groups(patients, truth)
    require_both_classes(truth, what="reader study")
    parts = [delong.components(truth, as_scores(values, truth), groups) for values in scores]
    covariance = [[delong.covariance(truth, groups, first, second) for second in parts] for first in parts]
    return np.array([part.auroc for part in parts]), np.array(covariance)


def compare_with_readers(predictions: Predictions, scores: pd.DataFrame) -> ReaderStudy:
    """Compare the model's AUROC with the readers' mean, on the cases that all of them scored.

    Args:
        predictions: one row a case, with probabilities; unlabelled rows are left out.
        scores: index ``case_id``, one column a reader, NaN where a reader did not score.

    Raises:
        UndefinedMetricError: when no judged case was scored by every reader, these cases have one class, there are
            fewer than two readers, or nothing varies.
    """
    labelled = predictions.labelled()
    of_cases = scores.reindex(labelled.case_ids)
    complete = of_cases.notna().all(axis=1).to_numpy()
    if not complete.any():
        raise UndefinedMetricError(
            f"reader study: none of the {len(labelled)} judged cases was scored by all {len(scores.columns)} readers; "
            "have them score these cases"
        )
    labels, patients = labelled.labels[complete], labelled.patients[complete]
    columns = [of_cases[name].to_numpy(dtype=np.float64)[complete] for name in of_cases.columns]
    aurocs, covariance = auroc_covariance(labels, [labelled.probabilities[complete], *columns], patients)
    # Each reader's difference from the model: the model's row less the reader's.
    less = np.column_stack([np.ones(len(columns)), -np.eye(len(columns))])
    average = panel_mean(aurocs[1:], covariance[1:, 1:])
    gain = panel_mean(less @ aurocs, less @ covariance @ less.T)
    return ReaderStudy(
        n_cases=int(complete.sum()),
        n_patients=int(np.unique(patients).size),
        n_positive=int(labels.sum()),
        left_out=int((~complete).sum()),
        not_judged=len(set(scores.index) - set(labelled.case_ids.tolist())),
        readers=tuple(
            ReaderAuroc(str(name), float(area), float(aurocs[0] - area))
            for name, area in zip(of_cases.columns, aurocs[1:], strict=True)
        ),
        model=float(aurocs[0]),
        average=average.random,
        gain=gain.random,
        gain_fixed=gain.fixed,
        gain_fixed_cases=gain.fixed_cases,
        degrees_of_freedom=gain.degrees_of_freedom,
    )
