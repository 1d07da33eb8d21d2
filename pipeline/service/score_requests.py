"""One request to score, from its first byte to its answer; its files are gone at the end, whatever happens."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pipeline.cases.case import Case
from pipeline.errors import PipelineError
from pipeline.imaging.stored_names import is_zip
from pipeline.scoring.engines.live_pool import LivePool
from pipeline.scoring.finding.live_search import LiveRow
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.rows import ScoreRow
from pipeline.service.answers import BUSY, RequestError, rows_response, scan_response
from pipeline.service.archives import unpack
from pipeline.service.guard import GONE
from pipeline.service.metrics import ServiceMetrics
from pipeline.service.requests import RequestFields, cases_of_request
from pipeline.service.served_models import ServedModels
from pipeline.service.settings import ServiceLimits
from pipeline.service.spool import RequestFolder, UploadSpool
from pipeline.service.uploads import Upload, receive, too_large
from pipeline.service.volume_uploads import put_together

_UNPACKERS = 2
_LOADING_SECONDS, _BUSY_SECONDS = 5, 2  # when to ask again


class ScoreRequests:
    """Answers requests to score.

    Args:
        pool: that scores.
        models: that the pool scores with.
        spool: for uploads.
        limits: of each request and of all together.
        metrics: that count rows.

    Attributes:
        fields: that a request may have.
    """

    def __init__(
        self,
        pool: LivePool[LiveRow],
        models: ServedModels,
        *,
        spool: UploadSpool,
        limits: ServiceLimits,
        metrics: ServiceMetrics,
    ) -> None:
        self._pool, self._spool, self._limits, self._metrics = pool, spool, limits, metrics
        self._score_tables, self._scan_tables = models.score_tables, models.scan_tables
        self._is_fitted = models.scan_probability is not None
        self.fields = RequestFields(models.covariates, has_detector=models.detector is not None)
        self._unpackers = ThreadPoolExecutor(_UNPACKERS, thread_name_prefix="unpack")
        self._receiving = 0

    async def answer(self, request: Request) -> Response:
        """The response to a request, refusals included."""
        try:
            self._require_ready()
            self._require_small(request)
            async with self._folder() as folder:
                async with self._slot():
                    upload = await receive(request, folder, self._limits)
                    upload = await self._settled(upload, folder)
                cases = cases_of_request(upload, self.fields, folder=folder, limits=self._limits)
                rows = await self._rows(request, cases)
        except RequestError as refusal:
            return refusal.response()
        except ClientDisconnect:
            return Response(status_code=GONE)
        self._metrics.count_rows(rows)
        return self._response(rows)

    def _response(self, rows: Sequence[LiveRow]) -> Response:
        first = rows[0]
        if isinstance(first, ScanRow):
            assert self._scan_tables is not None
            return scan_response(first, self._scan_tables, fitted=self._is_fitted)
        return rows_response([row for row in rows if isinstance(row, ScoreRow)], self._score_tables)

    def _require_ready(self) -> None:
        if not self._pool.ready_workers:
            reason = "the model is being loaded; ask again"
            raise RequestError(BUSY, reason, retry_seconds=_LOADING_SECONDS)
        if not self._pool.has_room():
            raise self._busy()

    def _busy(self) -> RequestError:
        return RequestError(BUSY, "too many requests at a time; ask again", retry_seconds=_BUSY_SECONDS)

    def _require_small(self, request: Request) -> None:
        """Refuse a body by its announced length, before any of it is taken."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limits.upload_bytes:
            raise too_large(self._limits)

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[RequestFolder]:
        folder = self._spool.request()
        try:
            yield folder
        finally:
            # Not awaited: a cancelled request must remove its files too, and these are few and in the page cache.
            folder.remove()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._receiving >= self._limits.uploads:
            raise self._busy()
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    async def _settled(self, upload: Upload, folder: RequestFolder) -> Upload:
        """The upload, with the members of the archive where it is one, and a volume's files where they belong."""
        loop = asyncio.get_running_loop()
        if len(upload.files) == 1:
            (path,) = upload.files
            with open(path, "rb") as handle:
                if not is_zip(handle.read(4)):
                    return upload
            members = await loop.run_in_executor(self._unpackers, unpack, path, folder, self._limits)
            upload.files, upload.sent_names = list(members), members
        await loop.run_in_executor(self._unpackers, put_together, upload)
        return upload

    async def _rows(self, request: Request, cases: Sequence[Case]) -> list[LiveRow]:
        """The rows of cases; when the client goes, those that no worker has are not scored."""
        try:
            futures = [asyncio.wrap_future(future) for future in self._pool.submit(cases)]
        except queue.Full:
            raise self._busy() from None
        except PipelineError:
            raise RequestError(BUSY, "the service is ending", retry_seconds=_LOADING_SECONDS) from None
        rows = asyncio.gather(*futures)
        gone = asyncio.ensure_future(request.receive())  # nothing is left of the body: it comes when the client goes
        try:
            await asyncio.wait((rows, gone), return_when=asyncio.FIRST_COMPLETED)
            if not rows.done():
                raise ClientDisconnect
            return await rows
        except PipelineError:
            raise RequestError(BUSY, "the service is ending", retry_seconds=_LOADING_SECONDS) from None
        finally:
            gone.cancel()
            rows.cancel()
