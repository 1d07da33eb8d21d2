"""A detector in the listener: processes of its own that search whole scans for lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.errors import CaseError, Code
from pipeline.scoring.backends import Backend
from pipeline.scoring.finding.detector_description import DetectorDescription
from pipeline.scoring.finding.scan_rows import ScanRow, candidate_case
from pipeline.scoring.finding.scan_worker import FinderSetup
from pipeline.scoring.local import WorkerPool
from pipeline.scoring.rows import ModelIdentity


class DetectorSearch:
    """Searches scans; the same processes serve every call.

    Args:
        folder: of the detector.
        detector: its description.
        root: folder that no image may leave.
        workers: processes, at most.
        timeout_seconds: that one scan may take to be read.
        backend: of the classifier, for the processes' threads.
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
    ) -> None:
        self.digest = detector.digests.model
        identity = ModelIdentity(detector.label, self.digest, detector.digests.preprocessing)
        setup = FinderSetup.on_this_machine(folder, identity, root=root, workers=workers, backend=backend)
        self._pool: WorkerPool[ScanRow] = WorkerPool(setup, identity, workers=workers, timeout_seconds=timeout_seconds)

    def search(self, scans: Sequence[Case]) -> list[list[Case]]:
        """The cases of each scan: one a candidate, or one with the reason why there is none."""
        return [_cases(scan, row) for scan, row in zip(scans, self._pool.score(scans, 1), strict=True)]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def _cases(scan: Case, row: ScanRow) -> list[Case]:
    scan = replace(scan, fault=None)
    if row.status not in ("scored", "flagged"):
        return [replace(scan, fault=CaseError(Code[row.code], scan.image, row.reason))]
    if not row.candidates:
        reason = "nothing marks a lesion in it, and the detector found none; look at it"
        return [replace(scan, fault=CaseError(Code.E_CENTER_MISSING, scan.image, reason))]
    return [candidate_case(scan, number, candidate) for number, candidate in enumerate(row.candidates, start=1)]
