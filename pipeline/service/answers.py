"""What the service answers: rows with their HTTP status, and refusals in words; strict JSON, never NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse

from pipeline.scoring.rows import ScoreRow, rows_table

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


def rows_response(rows: Sequence[ScoreRow], *, members: int, findings: Sequence[str]) -> JSONResponse:
    """The rows of one request.

    The status is 200 when a row has a probability; 422 when all are rejected, with the first one's code and reason as
    ``error``; 500 when none has a probability and one failed through a fault of ours.

    Args:
        rows: at least one.
        members: of the ensemble; 0 for a single model.
        findings: of a multi-label model; none for a single finding.
    """
    content: dict[str, Any] = {
        "rows": rows_table(rows, members=members, findings=findings).to_pylist(),
        "notice": RESEARCH_NOTICE,
    }
    if any(row.probability is not None for row in rows):
        return JSONResponse(content, SCORED)
    failed = [row for row in rows if row.status == "failed"]
    first = (failed or rows)[0]
    content["error"] = {"code": str(first.code), "reason": first.reason}
    return JSONResponse(content, FAILED if failed else REJECTED)
