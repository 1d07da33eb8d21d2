"""Worker for whole scans: read one, search it and, with a classifier, score its candidates.

The second stage cuts its regions out of the scan that the first has decoded; it reads, prepares and scores them as it
does from a table of the same candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pipeline.cases.case import Case
from pipeline.cases.signature import input_signature
from pipeline.errors import Code
from pipeline.imaging.image import Warning
from pipeline.machine import usable_cores
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.scan_rows import ScanRow, candidate_case, unsearched
from pipeline.scoring.rows import ModelIdentity, ScoreRow, Status, first_code, now, why_unscored

if TYPE_CHECKING:
    from pipeline.evaluation.detection.scan_probability import ScanBounds, ScanProbability
    from pipeline.scoring.finding.finder import Finder
    from pipeline.scoring.finding.searchable_scan import SearchableScan
    from pipeline.scoring.scorer import Scorer

_BATCH = 8  # candidates that go through the classifier together


@dataclass(frozen=True)
class FinderSetup:
    """All that another process needs to search scans and score their candidates.

    Attributes:
        folder: the detector's directory.
        identity: of the detector.
        scorer: of the second stage; None without a classifier.
        root: folder that no image may leave.
        threads: of PyTorch in each process.
    """

    folder: Path
    identity: ModelIdentity
    scorer: ScorerSetup | None = None
    root: Path | None = None
    threads: int = 1
    device: str = "cpu"  # the workers do everything, because a decoded scan is too large to be sent
    backend: Backend = "eager"

    @classmethod
    def on_this_machine(
        cls,
        folder: Path,
        identity: ModelIdentity,
        *,
        root: Path | None,
        classifiers: Sequence[Path] = (),
        workers: int | None = None,
        backend: Backend = "eager",
    ) -> FinderSetup:
        """The setup for this machine, its cores shared among workers.

        Args:
            folder: the detector's directory.
            identity: of the detector.
            root: folder that no image may leave.
            classifiers: directories of the second stage's models; none for a search alone.
            workers: processes; None for one per core.
            backend: how the classifier is run.
        """
        cores = usable_cores()
        threads = max(1, cores // (workers or cores))
        scorer = None
        if classifiers:
            scorer = ScorerSetup(tuple(classifiers), root=root, backend=backend, threads=threads)
        return cls(folder, identity, scorer, root, threads, backend=backend)

    def build(self, *, device: str | None = None) -> ScanWorker:
        """Load the detector and the classifier.

        Raises:
            ModelError: when one cannot be loaded.
        """
        from pipeline.scoring.finding.detector_directory import load_detector
        from pipeline.scoring.finding.finder import Finder

        detector = load_detector(self.folder)
        finder = Finder(detector, root=self.root, device=device or self.device)
        scorer = None if self.scorer is None else self.scorer.build(device=device)
        return ScanWorker(finder, self.identity, scorer, scan_probability=detector.scan_probability)

    def drift(self, work: ScanWorker) -> float:
        """The largest change of a golden scan's probability, of the detector's or the classifier's.

        Raises:
            ModelError: when golden scans are damaged.
        """
        from pipeline.scoring.finding.golden_detector import golden_detector_drift

        drift = golden_detector_drift(work.finder, self.folder)
        if self.scorer is None or work.scorer is None:
            return drift
        return max(drift, self.scorer.drift(work.scorer))

    def refusal(
        self, case: Case, identity: ModelIdentity, *, status: Status, code: Code, reason: str, seconds: float = 0.0
    ) -> ScanRow:
        """The row of a scan that no worker answers for."""
        return unsearched(case, identity, status=status, code=code, reason=reason, seconds=seconds)


@dataclass(frozen=True, eq=False)
class ReadScan:
    """A scan that can be searched, or the reason why it cannot be."""

    case: Case
    outcome: SearchableScan | Exception
    signature: str
    started: float


@dataclass(frozen=True, eq=False)
class ScanWorker:
    """Searches scans, one row each; it never raises because of a scan.

    Attributes:
        finder: searches.
        identity: of the detector, in the rows.
        scorer: of the second stage; None without a classifier.
        scan_probability: as the detector's directory has it; used with the classifier that it was fitted with alone.
    """

    finder: Finder
    identity: ModelIdentity
    scorer: Scorer | None = None
    scan_probability: ScanProbability | None = None

    def prepare(self, case: Case) -> ReadScan:
        """Read and check one scan."""
        started, signature = perf_counter(), ""
        try:
            signature = input_signature(case, self._covariates)
            outcome: SearchableScan | Exception = self.finder.read(case)
        except Exception as error:  # noqa: BLE001  # a fault of ours costs this row, never the batch
            outcome = error
        return ReadScan(case, outcome, signature, started)

    def score(self, batch: Sequence[ReadScan]) -> list[ScanRow]:
        """One row for each scan, in order."""
        return [self._row(item) for item in batch]

    @property
    def _covariates(self) -> Sequence[str]:
        return () if self.scorer is None else tuple(self.scorer.descriptions[0].covariates)

    def _row(self, item: ReadScan) -> ScanRow:
        if isinstance(item.outcome, Exception):
            return self._unsearched(item, item.outcome)
        try:
            return self._searched(item, item.outcome)
        except Exception as error:  # noqa: BLE001  # as above
            return self._unsearched(item, error)

    def _searched(self, item: ReadScan, scan: SearchableScan) -> ScanRow:
        findings = self.finder.find(scan)
        scores = self._scores(item.case, scan, findings.candidates)
        bounds = self._bounds(findings.candidates, scores)
        warnings = (*findings.warnings, *_unscored(scores, bounds))
        codes = [warning.code for warning in warnings]
        return ScanRow(
            case_id=item.case.case_id,
            patient_id=item.case.patient_id,
            image=item.case.image,
            status="flagged" if codes else "scored",
            code=first_code(codes),
            reason="; ".join(warning.detail for warning in warnings),
            warnings=";".join(codes),
            probability=None if bounds is None else bounds.probability,
            probability_lower=None if bounds is None else bounds.lower,
            probability_upper=None if bounds is None else bounds.upper,
            candidates=findings.candidates,
            scores=scores,
            extra=item.case.extra,
            detector=self.identity,
            image_sha256=findings.facts.digest,
            measures=findings.measures,
            signature=item.signature,
            scored_at=now(),
            seconds=round(perf_counter() - item.started, 4),
        )

    def _scores(self, case: Case, scan: SearchableScan, candidates: Sequence[Candidate]) -> tuple[ScoreRow, ...]:
        if self.scorer is None:
            return ()
        rows: list[ScoreRow] = []
        cases = [candidate_case(case, number, candidate) for number, candidate in enumerate(candidates, start=1)]
        for start in range(0, len(cases), _BATCH):
            batch = [self.scorer.prepare(lesion, scan=scan.scan) for lesion in cases[start : start + _BATCH]]
            rows += self.scorer.score(batch)
        return tuple(replace(row, measures={}, signature="") for row in rows)  # neither is kept of a candidate

    def _bounds(self, candidates: Sequence[Candidate], scores: Sequence[ScoreRow]) -> ScanBounds | None:
        """Bounds of the probability that the scan holds a malignant lesion; None where none was fitted for both models.

        A candidate that could not be scored might be the malignant one, or be benign: both are counted with.
        """
        fitted = self.scan_probability
        if fitted is None or self.scorer is None or fitted.classifier_digest != self.scorer.identity.model_digest:
            return None
        return fitted.bounds(
            [candidate.probabilities[0] for candidate in candidates], [row.probability for row in scores]
        )

    def _unsearched(self, item: ReadScan, error: Exception) -> ScanRow:
        seconds = perf_counter() - item.started
        return unsearched(item.case, self.identity, **why_unscored(error), signature=item.signature, seconds=seconds)


def _unscored(scores: Sequence[ScoreRow], bounds: ScanBounds | None) -> tuple[Warning, ...]:
    """The flag of a scan with candidates that the classifier could not score."""
    count = sum(row.probability is None for row in scores)
    if not count:
        return ()
    detail = f"{count} of {len(scores)} candidates could not be scored"
    if bounds is not None:
        detail += f", so that the scan's probability lies between {bounds.lower:.3f} and {bounds.upper:.3f}"
    return (Warning(Code.W_CANDIDATE_UNSCORED, detail),)
