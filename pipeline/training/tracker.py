"""Protocol by which training records metrics; ``pipeline.tracking`` implements it with MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """Receives measurements while weights are fitted."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Record named numbers of one epoch."""
        ...


class PrefixTracker:
    """Passes metrics on with a prefix, so that several trainings can share a tracker."""

    def __init__(self, tracker: Tracker, prefix: str) -> None:
        self._tracker, self._prefix = tracker, prefix

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Pass the numbers on."""
        self._tracker.metrics({f"{self._prefix}{name}": value for name, value in values.items()}, step=step)


class NullTracker:
    """Records nothing, so that callers need not check whether there is a tracker."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Ignore the numbers."""
