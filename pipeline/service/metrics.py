"""Counts and times for Prometheus; no label holds anything that a request says."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.scoring.rows import ModelIdentity, ScoreRow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ServiceMetrics:
    """What the service counts.

    Args:
        identity: of the model.
        gauges: by name, what it means and how its value is read when somebody asks.
    """

    def __init__(self, identity: ModelIdentity, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "malignancy_requests", "Requests by route and HTTP status", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "malignancy_request_seconds",
            "From the request's head to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._cases = Counter(
            "malignancy_cases", "Score rows by status and code", ("status", "code"), registry=self._registry
        )
        model = Gauge("malignancy_model", "The model that scores", ("model", "digest"), registry=self._registry)
        model.labels(identity.model, identity.model_digest).set(1)
        for name, (meaning, value) in gauges.items():
            Gauge(f"malignancy_{name}", meaning, registry=self._registry).set_function(value)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            route: of the closed list of routes.
            status: HTTP status; 499 where the client had gone.
            seconds: that it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_rows(self, rows: Iterable[ScoreRow]) -> None:
        """Count score rows by status and code."""
        for row in rows:
            self._cases.labels(row.status, str(row.code)).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
