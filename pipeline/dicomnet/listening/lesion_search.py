"""A detector in the listener: processes of its own that search whole scans for lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.errors import CaseError, Code
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.local import WorkerPool
from pipeline.scoring.finding.detector_description import DetectorDescription
from pipeline.scoring.finding.scan_rows import (
    DETECTOR,
    DETECTOR_DIGEST,
    LESION_PROBABILITY_COLUMN,
    ScanRow,
    candidate_case,
)
from pipeline.scoring.finding.scan_worker import FinderSetup


class DetectorSearch:
    """Searches scans; the same processes serve every call.

    Args:
        folder: of the detector.
        detector: its description.
        root: folder that no image may leave.
        workers: processes, at most.
        timeout_seconds: that one scan may take to be read.
        backend: of the classifier, for the processes' threads.
        least_probability: of being a lesion; candidates below it are ignored.
    """

    def __init__(
        self,
        folder: Path,
        detector: DetectorDescription,
        *,
        root: Path,
        workers: int,
        timeout_seconds: float,
        backend: Backend = "eager",
        least_probability: float = 0.0,
    ) -> None:
        self._least = least_probability
        self.digest = detector.digests.model
        identity = detector.identity
        setup = FinderSetup.on_this_machine(folder, identity, root=root, workers=workers, backend=backend)
        self._pool: WorkerPool[ScanRow] = WorkerPool(setup, identity, workers=workers, timeout_seconds=timeout_seconds)

    def search(self, scans: Sequence[Case]) -> list[list[Case]]:
        """The cases of each scan: one a candidate, or one with the reason why there is none."""
        return [_cases(scan, row, self._least) for scan, row in zip(scans, self._pool.score(scans, 1), strict=True)]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def _cases(scan: Case, row: ScanRow, least_probability: float) -> list[Case]:
    scan = replace(scan, fault=None)
    if not row.was_searched:
        return [replace(scan, fault=CaseError(Code[row.code], scan.image, row.reason))]
    likely = [candidate for candidate in row.candidates if candidate.probabilities[0] >= least_probability]
    if not likely:
        reason = (
            f"nothing marks a lesion in it, and the detector {row.detector.model} found none with a probability of "
            f"{least_probability:g} or more; look at it"
        )
        return [replace(scan, fault=CaseError(Code.E_CENTER_MISSING, scan.image, reason))]
    cases = [candidate_case(scan, number, candidate) for number, candidate in enumerate(likely, start=1)]
    named = {DETECTOR: row.detector.model, DETECTOR_DIGEST: row.detector.model_digest}
    return [
        replace(case, extra={**case.extra, **named, LESION_PROBABILITY_COLUMN: repr(candidate.probabilities[0])})
        for case, candidate in zip(cases, likely, strict=True)
    ]
