"""Results of an evaluation: statistics with intervals, and whether calibration is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.calibration.error import EceNull
from pipeline.evaluation.calibration.outcome import (
    REFUTED,
    SHOWN,
    CalibrationOutcome,
    SampleSize,
    calibration_outcome,
)
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.metrics import Confusion


@dataclass(frozen=True)
class CalibrationSummary:
    """Calibration of one column of probabilities, in single numbers.

    Attributes:
        brier_score: mean squared gap.
        log_loss: nats a case.
        ece: over ``bins`` equal-mass bins; None where undefined.
        bins: equal-mass bins.
        miscalibration: the part of the Brier score that recalibration could win back (no bins).
        cumulative_error: range of the cumulated gap between labels and probabilities (no bins).
    """

    brier_score: float
    log_loss: float
    ece: float | None
    bins: int
    miscalibration: float
    cumulative_error: float


@dataclass(frozen=True)
class Evaluation:
    """Result of ``evaluate``.

    Attributes:
        n_cases: labelled cases judged.
        n_patients: patients they come from.
        n_positive: malignant cases.
        n_unlabelled: rows left out because they have no label.
        intervals: ``auroc``, ``average_precision``, ``brier_score``, ``scaled_brier_score``, ``log_loss``,
            ``calibration_slope``, ``calibration_intercept``, ``observed_expected`` (O:E), ``ici``, ``e50``, ``e90``
            (distance of the calibration curve from the diagonal), ``sensitivity``, ``specificity``, ``ppv``, ``npv``,
            ``net_benefit`` (at the operating threshold), ``brier_score_uncalibrated``, ``log_loss_uncalibrated``:
            those the cases define.
        undefined: the others, with the reason.
        cautions: of the statistics whose interval may be too narrow here, why: the cases lie below the range in which
            it has been shown to hold. Of ``calibration_slope``: how many probabilities are 0 or 1, and what they do.
        patients_unknown: whether every case's patient id is its case id, so that intervals are by case.
        calibrated: of the probability column.
        uncalibrated: of the bare sigmoid of the logit, beside it.
        null: ECE of perfectly calibrated probabilities on these cases; None where ECE is undefined.
        cumulative_null_p95: 95th percentile of the cumulative error of perfectly calibrated probabilities.
        confusion: counts at the operating point.
        operating_point: chosen elsewhere, on the calibration split.
        fold_thresholds: lowest and highest threshold that decided these cases, where each fold's was chosen on the
            other folds; None where the operating point decided them all.
    """

    n_cases: int
    n_patients: int
    n_positive: int
    n_unlabelled: int
    intervals: Mapping[str, Interval]
    undefined: Mapping[str, str]
    cautions: Mapping[str, str]
    patients_unknown: bool
    calibrated: CalibrationSummary
    uncalibrated: CalibrationSummary
    null: EceNull | None
    cumulative_null_p95: float
    confusion: Confusion
    operating_point: OperatingPoint
    fold_thresholds: tuple[float, float] | None = None

    def __getitem__(self, name: str) -> Interval:
        """A statistic with its interval.

        Raises:
            UndefinedMetricError: with the reason, when the cases do not define it.
        """
        if name not in self.intervals:
            raise UndefinedMetricError(self.undefined.get(name, f"{name}: is not a statistic of an evaluation"))
        return self.intervals[name]

    @property
    def counts(self) -> str:
        """Who was judged, as ``80 patients, 120 cases, 40 malignant``; no patients where they are unknown."""
        if self.patients_unknown:
            return f"{self.n_cases} cases of unknown patients, {self.n_positive} malignant; intervals are by case"
        return f"{self.n_patients} patients, {self.n_cases} cases, {self.n_positive} malignant"

    @property
    def prevalence(self) -> float:
        """Share of malignant cases among those judged."""
        return self.n_positive / self.n_cases

    @property
    def decided_at(self) -> str:
        """The operating point in a line, and how cases of folds were decided."""
        line = self.operating_point.describe()
        if self.fold_thresholds is None:
            return line
        low, high = self.fold_thresholds
        return f"{line}; each fold is decided at the threshold chosen on the others, {low:.3g} to {high:.3g}"

    @property
    def ece(self) -> float | None:
        """ECE of the probability column; None where undefined."""
        return self.calibrated.ece

    @property
    def calibration(self) -> CalibrationOutcome:
        """Whether calibration is shown, not shown or refuted on these cases, and why."""
        counts = SampleSize(self.n_patients, self.n_cases, self.n_positive)
        return calibration_outcome(self.intervals, self.undefined, counts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{name: getattr(self, name) for name in ("n_cases", "n_patients", "n_positive", "n_unlabelled")},
            "prevalence": self.prevalence,
            "patients_unknown": self.patients_unknown,
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "undefined": dict(self.undefined),
            "cautions": dict(self.cautions),
            "calibrated": asdict(self.calibrated),
            "uncalibrated": asdict(self.uncalibrated),
            "ece_null": None if self.null is None else asdict(self.null),
            "cumulative_error_null_p95": self.cumulative_null_p95,
            "confusion": asdict(self.confusion),
            "operating_point": self.operating_point.to_json(),
            "fold_thresholds": None if self.fold_thresholds is None else list(self.fold_thresholds),
            "calibration_outcome": self.calibration.to_json(),
        }

    def metrics(self, prefix: str = "test_") -> dict[str, float]:
        """Flat numbers for a tracking store, as ``test_auroc``, ``test_auroc_lower``; undefined ones are left out."""
        flat: dict[str, float] = {
            "n_cases": self.n_cases,
            "n_patients": self.n_patients,
            "n_positive": self.n_positive,
            "prevalence": self.prevalence,
            "threshold": self.operating_point.threshold,
            "brier_score_uncalibrated": self.uncalibrated.brier_score,
            "log_loss_uncalibrated": self.uncalibrated.log_loss,
            "miscalibration": self.calibrated.miscalibration,
            "cumulative_error": self.calibrated.cumulative_error,
            "cumulative_error_null_p95": self.cumulative_null_p95,
            "calibration_shown": float(self.calibration.verdict == SHOWN),
            "calibration_refuted": float(self.calibration.verdict == REFUTED),
        }
        for name, interval in self.intervals.items():
            flat |= {name: interval.estimate, f"{name}_lower": interval.lower, f"{name}_upper": interval.upper}
        if self.ece is not None and self.null is not None and self.uncalibrated.ece is not None:
            flat |= {"ece": self.ece, "ece_uncalibrated": self.uncalibrated.ece}
            flat |= {"ece_null_median": self.null.median, "ece_null_p95": self.null.p95}
        return {f"{prefix}{name}": float(value) for name, value in flat.items()}
