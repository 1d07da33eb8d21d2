"""The score row: one for every input, always, in one order of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.cases.case import Case
from pipeline.errors import CaseError, Code, UnfinishedError
from pipeline.evaluation.decisions.refer_zone import Decision
from pipeline.files import atomic_write, neutral

Status = Literal["scored", "flagged", "rejected", "failed"]
STATUSES: tuple[Status, ...] = ("scored", "flagged", "rejected", "failed")


@dataclass(frozen=True)
class FindingScore:
    """One of several findings in a case: uncalibrated logit, calibrated probability, decision at its own threshold."""

    logit: float
    probability: float
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Result of one case.

    Attributes:
        status: ``scored``; ``flagged`` (scored, with warnings); ``rejected`` (the case's fault); ``failed`` (ours).
        code: the error, or the first warning, or empty.
        reason: the code in words, without patients' data.
        warnings: all warnings' codes, joined by ``;``; of a rejected case those found before the error.
        probability: calibrated probability of malignancy, None unless scored or flagged.
        decision: ``positive`` when the probability is at or above the threshold, else ``negative``; ``refer`` when the
            model has a refer zone that does not agree.
        logit: uncalibrated; of an ensemble, the members' mean.
        seconds: from opening the scan to the row's completion, waiting for the batch included.
        members: each member's own calibrated probability; empty for a single model. Written as
            ``probability_member_<n>``, n from 1.
        findings: of a multi-label model, every finding in order, the first repeating ``probability``; else empty.
            Written as ``probability_<finding>`` and ``decision_<finding>``.
        measures: of the region, as the envelope judges them; for drift, and not in the tables.
        signature: of the input before it was opened (see `pipeline.cases.signature`); not in the tables.
    """

    case_id: str
    patient_id: str | None
    image: str
    status: Status
    code: str = ""
    reason: str = ""
    warnings: str = ""
    probability: float | None = None
    decision: Decision | None = None
    threshold: float | None = None
    logit: float | None = None
    model: str
    model_digest: str
    preprocessing_digest: str
    image_sha256: str | None = None
    scored_at: str
    seconds: float
    members: tuple[float, ...] = ()
    findings: tuple[FindingScore, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    signature: str = ""


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of the model in every row of a run.

    Attributes:
        model: name and short digest, of an ensemble joined by ``+``.
        model_digest: of the weights and all other values that change a probability.
        preprocessing_digest: of how scans are read and cut out.
    """

    model: str
    model_digest: str
    preprocessing_digest: str


def refusal(
    case: Case,
    identity: ModelIdentity,
    *,
    status: Status,
    code: Code,
    reason: str,
    warnings: Sequence[Code] = (),
    signature: str = "",
    seconds: float = 0.0,
) -> ScoreRow:
    """The row of a case without a score."""
    return ScoreRow(
        **case_columns(case),
        status=status,
        code=code,
        reason=reason,
        warnings=";".join(warnings),
        **asdict(identity),
        scored_at=now(),
        seconds=round(seconds, 4),
        signature=signature,
    )


def why_unscored(error: Exception) -> dict[str, Any]:
    """Status, code, reason and warnings of a case that an error kept from being scored."""
    if isinstance(error, CaseError):
        return {"status": "rejected", "code": error.code, "reason": error.reason, "warnings": error.warnings}
    # The message of an unforeseen error may quote a patient's data, so only its type is given.
    unforeseen = f"{type(error).__name__} inside the program; please report it with this row"
    reason = str(error) if isinstance(error, UnfinishedError) else unforeseen
    return {"status": "failed", "code": Code.E_INTERNAL, "reason": reason}


_TYPES = {"probability": pa.float64(), "threshold": pa.float64(), "logit": pa.float64(), "seconds": pa.float64()}
_COLUMNS = tuple(
    column.name for column in fields(ScoreRow) if column.name not in ("members", "findings", "measures", "signature")
)


def schema(members: int = 0, findings: Sequence[str] = ()) -> pa.Schema:
    """The columns of a table of rows.

    Args:
        members: of the ensemble; 0 for a single model.
        findings: of a multi-label model; none for a single finding.
    """
    columns = [(name, _TYPES.get(name, pa.string())) for name in _COLUMNS]
    for name in findings:
        columns += [(f"probability_{name}", pa.float64()), (f"decision_{name}", pa.string())]
    return pa.schema(columns + [(f"probability_member_{number}", pa.float64()) for number in range(1, members + 1)])


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def rows_table(rows: Sequence[ScoreRow], *, members: int = 0, findings: Sequence[str] = ()) -> pa.Table:
    """Rows as an Arrow table with the contract's columns; a row without a score has blank members and findings."""
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    for place, name in enumerate(findings):
        for part in ("probability", "decision"):
            columns[f"{part}_{name}"] = [getattr(row.findings[place], part) if row.findings else None for row in rows]
    for number in range(members):
        columns[f"probability_member_{number + 1}"] = [row.members[number] if row.members else None for row in rows]
    return pa.table(columns, schema=schema(members, findings))


def write_score_tables(tables: Iterable[pa.Table], folder: Path, *, columns: pa.Schema) -> None:
    """Write ``scores.parquet`` and ``scores.csv`` from tables given one after the other, both whole or not at all.

    Args:
        tables: with the columns of ``columns``; only one is held at a time.
        folder: exists.
        columns: the schema of both files.
    """
    with table_writer(folder, "scores", columns) as write:
        for table in tables:
            write(table)


@contextmanager
def table_writer(folder: Path, name: str, columns: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write ``<name>.parquet`` and ``<name>.csv``, both whole or not at all, with the function that this yields."""
    with (
        atomic_write(folder / f"{name}.parquet") as parquet,
        atomic_write(folder / f"{name}.csv") as text,
        pyarrow.parquet.ParquetWriter(parquet, columns) as rows,
        pyarrow.csv.CSVWriter(text, columns) as lines,
    ):

        def write(table: pa.Table) -> None:
            rows.write_table(table)
            lines.write_table(_neutral_texts(table))

        yield write


@dataclass(frozen=True)
class ScoreTables:
    """Score rows as the sink keeps them, and the tables that a run ends with.

    Attributes:
        members: of the ensemble; 0 for a single model.
        findings: of a multi-label model; none for a single finding.
    """

    members: int = 0
    findings: Sequence[str] = ()

    @property
    def columns(self) -> pa.Schema:
        """Of the rows."""
        return schema(self.members, self.findings)

    def part(self, rows: Sequence[ScoreRow]) -> pa.Table:
        """Rows in these columns."""
        return rows_table(rows, members=self.members, findings=self.findings)

    def write(self, parts: Iterable[pa.Table], folder: Path) -> None:
        """Write ``scores.parquet`` and ``scores.csv`` of parts."""
        columns = self.columns
        write_score_tables((part.select(columns.names) for part in parts), folder, columns=columns)


def _neutral_texts(table: pa.Table) -> pa.Table:
    for number, column in enumerate(table.schema):
        if column.type == pa.string():
            texts = [text and neutral(text) for text in table.column(number).to_pylist()]
            table = table.set_column(number, column, pa.array(texts, pa.string()))
    return table


def case_columns(case: Case) -> dict[str, Any]:
    """The columns that say which case a row is about."""
    return {"case_id": case.case_id, "patient_id": case.patient_id, "image": case.image}


def first_code(warnings: Sequence[Code]) -> str:
    """The code column of a flagged row; empty without warnings."""
    return str(warnings[0]) if warnings else ""
