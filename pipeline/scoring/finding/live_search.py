"""What a worker of a live pool does for requests of both kinds: search a whole scan, or score a lesion with a centre.

One process holds detector and classifier, and every kind of request goes through the code of its command: a scan as
``score --find`` searches it, a lesion as ``score`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from pipeline.cases.case import Case
from pipeline.errors import Code
from pipeline.scoring.backends import Backend
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.finding.scan_worker import FinderSetup, ReadScan, ScanWorker
from pipeline.scoring.rows import ModelIdentity, ScoreRow, Status, refusal

if TYPE_CHECKING:
    from pipeline.scoring.scorer import Prepared, Scorer

LiveRow = ScoreRow | ScanRow


@dataclass(frozen=True)
class WholeScan(Case):
    """A case that is to be searched for lesions; any other case is scored as it is."""

    @classmethod
    def of(cls, case: Case) -> Self:
        """The same case, to be searched."""
        return cls(**{field.name: getattr(case, field.name) for field in fields(Case)})


@dataclass(frozen=True)
class LiveSearchSetup:
    """Everything that another process needs to search scans and to score lesions.

    Attributes:
        finder: with a classifier.
    """

    finder: FinderSetup

    @property
    def backend(self) -> Backend:
        """How the classifier is run."""
        return self.finder.backend

    @property
    def device(self) -> str:
        """``cpu``: the workers do all of it."""
        return self.finder.device

    @property
    def threads(self) -> int:
        """Of PyTorch in each process."""
        return self.finder.threads

    def build(self, *, device: str | None = None) -> LiveSearch:
        """Load the detector and the classifier.

        Raises:
            ModelError: when one cannot be loaded.
        """
        scans = self.finder.build(device=device)
        assert scans.scorer is not None
        return LiveSearch(scans, scans.scorer)

    def drift(self, work: LiveSearch) -> float:
        """The largest change of a golden scan's probability, of the detector's or the classifier's.

        Raises:
            ModelError: when golden scans are damaged.
        """
        return self.finder.drift(work.scans)

    def refusal(
        self, case: Case, identity: ModelIdentity, *, status: Status, code: Code, reason: str, seconds: float = 0.0
    ) -> LiveRow:
        """The row of a case that no worker answers for; ``identity`` is the classifier's, in the rows of lesions."""
        if isinstance(case, WholeScan):
            detector = self.finder.identity
            return self.finder.refusal(case, detector, status=status, code=code, reason=reason, seconds=seconds)
        return refusal(case, identity, status=status, code=code, reason=reason, seconds=seconds)


@dataclass(frozen=True, eq=False)
class LiveSearch:
    """Searches scans and scores lesions, one row each; it never raises for a case's sake.

    Attributes:
        scans: searches, and scores what is found.
        lesions: the same classifier, for lesions whose centre is given.
    """

    scans: ScanWorker
    lesions: Scorer

    def prepare(self, case: Case) -> ReadScan | Prepared:
        """Read one case."""
        return self.scans.prepare(case) if isinstance(case, WholeScan) else self.lesions.prepare(case)

    def score(self, batch: Sequence[ReadScan | Prepared]) -> list[LiveRow]:
        """One row for each case, in order."""
        rows: list[LiveRow] = []
        for item in batch:
            rows += self.scans.score([item]) if isinstance(item, ReadScan) else self.lesions.score([item])
        return rows
