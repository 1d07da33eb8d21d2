"""The routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from pipeline import __version__
from pipeline.scoring.engines.live_pool import LivePool
from pipeline.scoring.finding.live_search import LiveRow
from pipeline.service.answers import BUSY, FAILED, RESEARCH_NOTICE, RequestError
from pipeline.service.metrics import CONTENT_TYPE, ServiceMetrics
from pipeline.service.openapi import docs_page, score_operation
from pipeline.service.score_requests import ScoreRequests
from pipeline.service.served_models import ServedModels

ROUTES = ("/v1/score", "/v1/model", "/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json", "/docs")


def build_app(
    requests: ScoreRequests, pool: LivePool[LiveRow], models: ServedModels, metrics: ServiceMetrics
) -> FastAPI:
    """The application.

    Args:
        requests: that answer ``/v1/score``.
        pool: whose readiness is told.
        models: what ``/v1/model`` tells of.
        metrics: what ``/metrics`` says.
    """
    about = models.describe()
    app = FastAPI(
        title="malignancy-pipeline", version=__version__, description=RESEARCH_NOTICE, docs_url=None, redoc_url=None
    )

    operation = score_operation(models, requests.fields)

    @app.post(
        "/v1/score",
        summary="Score one scan: a row for each lesion, given or found",
        openapi_extra=operation,
    )
    async def score(request: Request) -> Response:
        return await requests.answer(request)

    @app.get("/v1/model", summary="What scores: digests, input contract, thresholds, label source, prevalence")
    async def about_model() -> JSONResponse:
        return JSONResponse(about)

    @app.get("/v2/health/live", summary="Whether the server answers")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", summary="Whether a worker has loaded its models and scored their golden scans rightly")
    async def ready() -> JSONResponse:
        workers = pool.ready_workers
        return JSONResponse({"ready": workers > 0, "workers": workers}, 200 if workers else BUSY)

    @app.get("/metrics", summary="Counts and times for Prometheus")
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _no_such_route,
        Exception: _fault_of_ours,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _no_such_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else FAILED
    return RequestError(status, "no such route or method; /docs lists them").response()


async def _fault_of_ours(_: Request, error: Exception) -> Response:
    # The message of an unforeseen error may quote a patient's data: its type must do.
    return RequestError(FAILED, f"{type(error).__name__} inside the server; please report it").response()
