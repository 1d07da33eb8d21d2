"""What the service answers: rows with their HTTP status, and refusals in words; strict JSON, never NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from fastapi.responses import JSONResponse

from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.finding.scan_tables import ScanTables
from pipeline.scoring.rows import ScoreRow, ScoreTables

RESEARCH_NOTICE = "Research use; not a medical device."
SCORED, UNREADABLE, UNAUTHORIZED, NO_HOST, TIMEOUT = 200, 400, 401, 421, 408
TOO_LARGE, WRONG_TYPE, REJECTED, FAILED, NOT_OFFERED, BUSY = 413, 415, 422, 500, 501, 503


class RequestError(Exception):
    """A request that gets no score row.

    Attributes:
        status: HTTP status.
        reason: what was found, what was expected and the way out, in one line; nothing that a patient's data is in.
        retry_seconds: when to ask again, of a refusal that only the moment is to blame for.
    """

    def __init__(self, status: int, reason: str, *, retry_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_seconds = status, reason, retry_seconds

    def response(self) -> JSONResponse:
        """The refusal as it is sent."""
        headers = {}
        if self.retry_seconds is not None:
            headers["Retry-After"] = str(self.retry_seconds)
        if self.status == UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        content = {"error": {"code": None, "reason": self.reason}, "notice": RESEARCH_NOTICE}
        return JSONResponse(content, self.status, headers)


def rows_response(rows: Sequence[ScoreRow], tables: ScoreTables) -> JSONResponse:
    """The rows of lesions whose centres were given.

    The status is 200 when a row has a probability; 422 when all are rejected, with the first one's code and reason as
    ``error``; 500 when none has a probability and one failed through a fault of ours.

    Args:
        rows: at least one.
        tables: with the rows' columns.
    """
    content: dict[str, Any] = {"rows": tables.part(rows).to_pylist(), "notice": RESEARCH_NOTICE}
    if any(row.probability is not None for row in rows):
        return JSONResponse(content, SCORED)
    failed = [row for row in rows if row.status == "failed"]
    return _unscored((failed or rows)[0], content)


def scan_response(row: ScanRow, tables: ScanTables, *, fitted: bool) -> JSONResponse:
    """The row of a scan that was to be searched, its candidates, and their score rows.

    The status is 200 when the scan was searched, whatever was found in it; 422 when it cannot be; 500 after a fault of
    ours. ``probability_reason`` of the scan says why it has no probability.

    Args:
        row: of the scan.
        tables: with the columns of scans, candidates and score rows.
        fitted: whether the probability of a scan was fitted for the detector with this classifier.
    """
    (part,) = tables.part([row]).to_pylist()
    (scan,) = pa.Table.from_pylist([tables.scan_of(part)], tables.scan_columns).to_pylist()
    content: dict[str, Any] = {
        "scan": {**scan, "probability_reason": _why_no_probability(row, fitted=fitted)},
        "candidates": pa.Table.from_pylist(tables.candidates_of(part), tables.candidate_columns).to_pylist(),
        "rows": part["scores"],
        "notice": RESEARCH_NOTICE,
    }
    return JSONResponse(content, SCORED) if row.was_searched else _unscored(row, content)


def _why_no_probability(row: ScanRow, *, fitted: bool) -> str | None:
    """Why a scan has no probability of holding a malignant lesion; None where it has one."""
    if row.probability is not None:
        return None
    if not row.was_searched:
        return "the scan was not searched; reason says why"
    if not fitted:
        return (
            "none was fitted for this detector with this classifier; malignancy evaluate DETECTOR SCANS --classifier "
            "MODEL fits one"
        )
    missing = sum(score.probability is None for score in row.scores)
    return f"{missing} of {len(row.scores)} candidates could not be scored, and one might be malignant; rows says why"


def _unscored(row: ScoreRow | ScanRow, content: dict[str, Any]) -> JSONResponse:
    """The answer to a request that has no result, with the row that says why."""
    error = {"code": str(row.code), "reason": row.reason}
    return JSONResponse({**content, "error": error}, FAILED if row.status == "failed" else REJECTED)
