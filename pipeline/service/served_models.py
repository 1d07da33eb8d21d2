"""What the service scores with: the classifier and, where it was given one, a detector that searches whole scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.workers import ScorerSetup, WorkerSetup
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.finding.detector_description import DetectorDescription
from pipeline.scoring.finding.live_search import LiveRow, LiveSearchSetup
from pipeline.scoring.finding.scan_tables import ScanTables
from pipeline.scoring.finding.scan_worker import FinderSetup
from pipeline.scoring.rows import ModelIdentity, ScoreTables
from pipeline.service.answers import RESEARCH_NOTICE


@dataclass(frozen=True)
class ServedDetector:
    """A detector whose digests have been verified.

    Attributes:
        folder: its directory.
        description: its ``model.json``.
    """

    folder: Path
    description: DetectorDescription


@dataclass(frozen=True)
class ServedModels:
    """Models whose digests have been verified.

    Attributes:
        folders: of the classifier, several of an ensemble.
        classifier: what they hold.
        backend: how its networks are run.
        detector: of whole scans; None where only lesions with a centre are scored.
    """

    folders: tuple[Path, ...]
    classifier: Ensemble
    backend: Backend = "eager"
    detector: ServedDetector | None = None

    @property
    def identity(self) -> ModelIdentity:
        """Of the classifier."""
        return self.classifier.identity(self.backend)

    @property
    def covariates(self) -> tuple[str, ...]:
        """Columns that the classifier needs of every case."""
        return tuple(self.classifier.descriptions[0].covariates)

    @property
    def score_tables(self) -> ScoreTables:
        """The columns of score rows."""
        return ScoreTables(self.classifier.member_columns, self.classifier.finding_columns)

    @property
    def scan_tables(self) -> ScanTables | None:
        """The columns of scans and candidates; None without a detector."""
        if self.detector is None:
            return None
        return ScanTables(self.detector.description.classes, self.score_tables, self.identity, self.covariates)

    @property
    def scan_probability(self) -> ScanProbability | None:
        """What turns a scan's candidates into its probability; None where none was fitted for both models."""
        if self.detector is None:
            return None
        return self.detector.description.scan_probability_with(self.identity.model_digest)

    def setup(self, *, root: Path, workers: int) -> WorkerSetup[LiveRow]:
        """What every worker does, and builds that from.

        Args:
            root: folder that no image may leave.
            workers: processes that share this machine's cores.
        """
        if self.detector is None:
            return ScorerSetup.on_this_machine(self.folders, root=root, backend=self.backend, workers=workers)
        finder = FinderSetup.on_this_machine(
            self.detector.folder,
            self.detector.description.identity,
            root=root,
            classifiers=self.folders,
            workers=workers,
            backend=self.backend,
        )
        return LiveSearchSetup(finder)

    def describe(self) -> dict[str, Any]:
        """What ``/v1/model`` says: what the rows come from and how they are to be read."""
        first = self.classifier.descriptions[0]
        return {
            "model": self.identity.model,
            "model_digest": self.identity.model_digest,
            "preprocessing_digest": self.identity.preprocessing_digest,
            "members": [model.digests.model for model in self.classifier.descriptions],
            "input_contract": first.input_contract,
            "modality": first.modality,
            "region": first.preprocessing.region,
            "covariates": list(first.covariates),
            "findings": list(first.findings),
            "thresholds": dict(zip(first.findings, self.classifier.thresholds, strict=True)),
            "operating_points": [
                {"model": model.name, "finding": finding, **dict(point), "words": _words(point)}
                for model in self.classifier.descriptions
                for finding, point in zip(model.findings, model.operating_points, strict=True)
            ],
            "refer_zone": first.refer_zone,
            "label": first.label.model_dump(mode="json"),
            "prevalence_at_calibration": [model.prevalence_at_calibration for model in self.classifier.descriptions],
            "detector": None if self.detector is None else self._describe_detector(self.detector.description),
            "notice": RESEARCH_NOTICE,
        }

    def _describe_detector(self, detector: DetectorDescription) -> dict[str, Any]:
        fitted = self.scan_probability
        return {
            "model": detector.label,
            "model_digest": detector.digests.model,
            "preprocessing_digest": detector.digests.preprocessing,
            "input_contract": detector.input_contract,
            "modality": detector.modality,
            "classes": list(detector.classes),
            "lesions": detector.lesions.model_dump(mode="json"),
            "candidates": detector.candidates.model_dump(mode="json"),
            "calibration": [Calibrator.from_json(calibrator).describe() for calibrator in detector.calibrators],
            "scan_probability": None if fitted is None else {**fitted.to_json(), "words": fitted.describe()},
        }


def _words(point: dict[str, Any]) -> str:
    return OperatingPoint.from_json(dict(point)).describe()
