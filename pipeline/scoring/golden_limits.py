"""How far a golden scan's probability may move before a run ends; no torch."""

from __future__ import annotations

from pipeline.errors import UnfinishedError
from pipeline.scoring.backends import Backend

_LIMIT, _LIMIT_OF_OTHER_BACKENDS = 1e-4, 1e-3


def require_no_drift(drift: float, *, backend: Backend, when: str) -> None:
    """End the run when a golden scan's probability has changed by more than the limit.

    Raises:
        UnfinishedError: with the change, the limit and what to look at.
    """
    limit = _LIMIT if backend == "eager" else _LIMIT_OF_OTHER_BACKENDS
    if drift <= limit:  # not so when it is NaN
        return
    cause = (
        "this machine or its packages compute something else: compare their versions with model.json"
        if backend == "eager"
        else "this model cannot be run so; leave --backend out"
    )
    raise UnfinishedError(
        f"golden scans {when}: a probability differs by {drift:.2g} from when the model was made, with backend "
        f"{backend} (limit {limit:g}); {cause}"
    )
