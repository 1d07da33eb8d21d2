"""What training tells the outside; ``pipeline.tracking`` implements it with MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """Receives measurements while weights are fitted."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Record named numbers of one epoch."""
        ...


class NullTracker:
    """Records nothing, so that callers need not ask whether there is a tracker."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Ignore the numbers."""
