"""Counts and times for Prometheus; no label holds anything that a request says."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.scoring.finding.live_search import LiveRow
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.rows import ModelIdentity

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ServiceMetrics:
    """What the service counts.

    Args:
        identity: of the model.
        gauges: by name, what it means and how its value is read when somebody asks.
        detector: of whole scans; None without one.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        gauges: dict[str, tuple[str, Callable[[], float]]],
        *,
        detector: ModelIdentity | None = None,
    ) -> None:
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
        self._scans = Counter(
            "malignancy_scans",
            "Scans that were to be searched, by status and code",
            ("status", "code"),
            registry=self._registry,
        )
        self._name_model("malignancy_model", "The model that scores", identity)
        if detector is not None:
            self._name_model("malignancy_detector", "The detector that searches scans", detector)
        for name, (meaning, value) in gauges.items():
            Gauge(f"malignancy_{name}", meaning, registry=self._registry).set_function(value)

    def _name_model(self, name: str, meaning: str, identity: ModelIdentity) -> None:
        model = Gauge(name, meaning, ("model", "digest"), registry=self._registry)
        model.labels(identity.model, identity.model_digest).set(1)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            route: of the closed list of routes.
            status: HTTP status; 499 where the client had gone.
            seconds: that it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_rows(self, rows: Iterable[LiveRow]) -> None:
        """Count the rows of lesions and of scans by status and code, and those of a scan's candidates."""
        for row in rows:
            counter = self._scans if isinstance(row, ScanRow) else self._cases
            counter.labels(row.status, str(row.code)).inc()
            if isinstance(row, ScanRow):
                self.count_rows(row.scores)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
