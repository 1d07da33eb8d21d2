"""The score row: one for every input, always, in one order of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.cases.case import Case
from pipeline.errors import Code
from pipeline.files import atomic_write

Status = Literal["scored", "flagged", "rejected", "failed"]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """What happened to one case.

    Attributes:
        status: ``scored``; ``flagged`` (scored, with warnings); ``rejected`` (the case's fault); ``failed`` (ours).
        code: the error, or the first warning, or empty.
        reason: the code in words, without patients' data.
        warnings: all warnings' codes, joined by ``;``; of a rejected case those found before the error.
        probability: calibrated probability of malignancy, None unless scored or flagged.
        decision: ``positive`` when the probability is at or above the threshold.
        logit: uncalibrated.
        seconds: from opening the scan to the row's completion, waiting for the batch included.
    """

    case_id: str
    patient_id: str | None
    image: str
    status: Status
    code: str = ""
    reason: str = ""
    warnings: str = ""
    probability: float | None = None
    decision: Literal["positive", "negative", "refer"] | None = None
    threshold: float | None = None
    logit: float | None = None
    model: str
    model_digest: str
    preprocessing_digest: str
    image_sha256: str | None = None
    scored_at: str
    seconds: float


_TYPES = {"probability": pa.float64(), "threshold": pa.float64(), "logit": pa.float64(), "seconds": pa.float64()}
SCHEMA = pa.schema([(field.name, _TYPES.get(field.name, pa.string())) for field in fields(ScoreRow)])


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def rows_table(rows: Sequence[ScoreRow]) -> pa.Table:
    """Rows as an Arrow table with the contract's columns."""
    return pa.table({field.name: [getattr(row, field.name) for row in rows] for field in SCHEMA}, schema=SCHEMA)


def write_rows(rows: Sequence[ScoreRow], folder: Path) -> None:
    """Write ``scores.parquet`` and ``scores.csv``, each whole or not at all."""
    table = rows_table(rows)
    with atomic_write(folder / "scores.parquet") as temporary:
        pyarrow.parquet.write_table(table, temporary)
    for number, column in enumerate(SCHEMA):
        if column.type == pa.string():
            texts = [neutral(text) for text in table.column(number).to_pylist()]
            table = table.set_column(number, column, pa.array(texts, pa.string()))
    with atomic_write(folder / "scores.csv") as temporary:
        pyarrow.csv.write_csv(table, temporary)


def neutral(text: str | None) -> str | None:
    """Text that no spreadsheet runs as a formula: a leading ``= + - @``, tab or return gets an apostrophe."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def identity(case: Case) -> dict[str, Any]:
    """The columns that say which case a row is about."""
    return {"case_id": case.case_id, "patient_id": case.patient_id, "image": case.image}


def first_code(warnings: Sequence[Code]) -> str:
    """The code column of a flagged row; empty without warnings."""
    return str(warnings[0]) if warnings else ""
