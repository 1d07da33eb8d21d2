"""Summary of a search of whole scans, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.console import one_line
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.detection.scan_probability import MOST_APART, ScanProbability
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.finding.detector_description import DetectorDescription
from pipeline.scoring.rows import STATUSES, ModelIdentity
from pipeline.workflow.reporting.ended_run import EndedRun, earlier_and_later, run_to_json

_HISTOGRAM_BINS = 20
_UNSCORED = ("rejected", "failed")
_SHOWN = 5  # scans printed at the end


@dataclass(frozen=True, kw_only=True)
class FindingRun(EndedRun):
    """A search that has come to its end.

    Attributes:
        detector: that searched.
        classifier: of the second stage; None without one.
        scorer: the same as its rows name it.
    """

    detector: DetectorDescription
    classifier: Ensemble | None
    scorer: ModelIdentity | None

    @property
    def scan_probability(self) -> ScanProbability | None:
        """Turns the candidates of a scan into its probability; None where none was fitted for both models."""
        return self.detector.scan_probability_with(self.scorer.model_digest) if self.scorer else None

    @property
    def reported_model(self) -> dict[str, Any] | None:
        """The classifier in the words of DICOM results; None without one."""
        if self.classifier is None or self.scorer is None:
            return None
        return ReportedModel.of(self.classifier.descriptions, self.scorer).model_dump(mode="json")


@dataclass(eq=False)
class _FoundCounts:
    """Counts over all scans: candidates, scans with one, candidates without a score, and their codes.

    ``undecided`` scans have bounds of a probability, and too little is known to give one.
    """

    candidates: int = 0
    scans: int = 0
    unscored: int = 0
    undecided: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_HISTOGRAM_BINS, np.int64))
    first: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: pa.Table) -> None:
        """Count the scans of a part."""
        for row in part.to_pylist():
            candidates = row["found"]
            self.candidates += len(candidates)
            self.scans += bool(candidates)
            self.undecided += row["probability"] is None and row["probability_lower"] is not None
            probabilities = [candidate["probability_nodule"] for candidate in candidates]
            self.histogram += np.histogram(probabilities, bins=_HISTOGRAM_BINS, range=(0.0, 1.0))[0]
            for score in row.get("scores", ()):
                self.unscored += score["status"] in _UNSCORED
                self.codes.update([score["code"]] if score["code"] else [])
            if len(self.first) < _SHOWN:
                names = ("case_id", "status", "code", "probability")
                self.first.append({**{name: row[name] for name in names}, "candidates": len(candidates)})


def summarise_finding(run: FindingRun, parts: Iterable[pa.Table]) -> dict[str, Any]:
    """``summary.json`` of a search.

    Args:
        run: that ended.
        parts: committed scans with their candidates (`pipeline.scoring.sink.Sink.tables`).
    """
    counts = _FoundCounts()
    for part in parts:
        counts.add(part)
    statuses: dict[str, int] = {status: run.counts.statuses.get(status, 0) for status in STATUSES}
    searched = statuses["scored"] + statuses["flagged"]
    unscored = sum(statuses[status] for status in _UNSCORED)
    rows = run.counts.total + (counts.candidates if run.classifier is not None else 0)
    fitted = run.scan_probability
    return {
        "cases": run.counts.total,
        **statuses,
        "codes": dict(run.counts.codes),
        "candidates": counts.candidates,
        "candidates_per_scan": round(counts.candidates / searched, 3) if searched else None,
        "scans_with_candidates": counts.scans,
        "candidates_not_scored": counts.unscored if run.classifier is not None else None,
        "scans_with_bounds_alone": counts.undecided,
        "candidate_codes": dict(sorted(counts.codes.items())),
        "unscored_share": (unscored + counts.unscored) / max(rows, 1),
        **run_to_json(run),
        "label_source": run.detector.lesions.source,
        "intensities": run.detector.lesions.intensities,
        "classifier": None if run.scorer is None else run.scorer.model,
        "reported_model": run.reported_model,
        "scan_probability": None if fitted is None else fitted.to_json(),
        "probability_histogram": counts.histogram.tolist(),
        "first_rows": counts.first,
    }


def finding_text(run: FindingRun, summary: Mapping[str, Any], out: Path) -> str:
    """The summary in a few lines of text."""
    counts = ", ".join(f"{summary[status]} {'searched' if status == 'scored' else status}" for status in STATUSES)
    lines = [f"{summary['cases']} scans: {counts} ({summary['seconds']:.1f} s)"]
    lines += earlier_and_later(run, "scans")
    lines += [f"  {code}: {count}" for code, count in summary["codes"].items()]
    if summary["candidates_per_scan"] is not None:
        lines.append(f"{summary['candidates']} candidates, {summary['candidates_per_scan']:g} a scan that was searched")
    if summary["candidates_not_scored"]:
        lines.append(f"  {summary['candidates_not_scored']} of them were not scored; scores.csv says why")
    if summary["scans_with_bounds_alone"]:
        lines.append(
            f"  {summary['scans_with_bounds_alone']} scans have bounds of a probability alone: candidates without a "
            f"score are more than half, or leave the bounds more than {MOST_APART:g} apart"
        )
    calibrator = Calibrator.from_json(run.detector.calibrators[0]).describe()
    lines.append(
        f"detector {run.identity.model}: probability that a candidate is a lesion ({summary['label_source']}), "
        f"{calibrator}, {summary['intensities']} intensities"
    )
    lines += _classifier_lines(run)
    for row in summary["first_rows"]:
        shown = row["code"] if row["status"] in _UNSCORED else f"{row['candidates']} candidates"
        if row["probability"] is not None:
            shown += f", probability {row['probability']:.3f} of a malignant lesion in the scan"
        lines.append(f"  {row['case_id']}: {shown} ({row['status']})")
    names = ["scans", "candidates", *(["scores"] if run.classifier is not None else [])]
    lines.append("rows: " + ", ".join(str(out / f"{name}.parquet") for name in names) + ", and as .csv")
    return "\n".join(map(one_line, lines))


def _classifier_lines(run: FindingRun) -> list[str]:
    if run.classifier is None or run.scorer is None:
        return []
    label, model = run.classifier.descriptions[0].label, run.scorer.model
    meaning = f"probability that a lesion is malignant ({label.source}), {label.intensities} intensities"
    lines = [f"model {model}: {meaning}"]
    fitted = run.scan_probability
    if fitted is None:
        lines.append(
            "no probability for the scan as a whole: none was fitted for this detector with this classifier; "
            "malignancy evaluate DETECTOR SCANS --classifier MODEL fits one"
        )
    else:
        lines.append(f"probability that the scan holds a malignant lesion: {fitted.describe()}")
    if label.intensities != run.detector.lesions.intensities:
        lines.append(
            f"the detector was made with {run.detector.lesions.intensities} intensities, the classifier with "
            f"{label.intensities}: not made for the same scans"
        )
    return lines
