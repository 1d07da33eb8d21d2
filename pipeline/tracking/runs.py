"""One MLflow run a training: opened and closed by its explicit id, never left open."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Tracking
from pipeline.tracking.store import Store, experiment_id, open_store

if TYPE_CHECKING:
    import pandas as pd

_VALUE_LIMIT = 6000  # characters of a parameter's value that MLflow stores
_BATCH = 100  # parameters that MLflow takes at once


@dataclass(frozen=True)
class TrackedRun:
    """A running MLflow run; implements ``pipeline.training.Tracker``."""

    store: Store
    run_id: str

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record named numbers; the step is the epoch while training."""
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        metrics = [Metric(name, float(value), stamp, step) for name, value in values.items()]
        self.store.client.log_batch(self.run_id, metrics=metrics)

    def params(self, tree: Mapping[str, Any]) -> None:
        """Record a nested configuration under dotted names."""
        from mlflow.entities import Param

        params = [Param(name, value[:_VALUE_LIMIT]) for name, value in _flat(tree)]
        for start in range(0, len(params), _BATCH):
            self.store.client.log_batch(self.run_id, params=params[start : start + _BATCH])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; ``mlflow.note.content`` is the Markdown note on the run's page."""
        from mlflow.entities import RunTag

        self.store.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file or a folder's files under the run."""
        if path.is_dir():
            self.store.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.store.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Store a text under the run as a file of this name."""
        self.store.client.log_text(self.run_id, text, name)

    def json(self, value: Mapping[str, Any], name: str) -> None:
        """Store plain JSON values under the run as a file of this name."""
        self.store.client.log_text(self.run_id, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), name)

    def dataset(self, table: pd.DataFrame, *, name: str, digest: str, source: str, context: str) -> None:
        """Record which data the run used; ``digest`` covers manifest, labels, splits and image bytes."""
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag

        targets = "label" if "label" in table else None
        dataset = mlflow.data.from_pandas(table, source=source, targets=targets, name=name, digest=digest[:32])
        tag = InputTag("mlflow.data.context", context)
        self.store.client.log_inputs(self.run_id, [DatasetInput(dataset._to_mlflow_entity(), [tag])])


@contextmanager
def open_run(config: Tracking, *, name: str, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
    """A new run that is closed whatever happens: FINISHED, FAILED, or KILLED by Ctrl-C.

    Raises:
        UnfinishedError: when the store cannot be reached.
    """
    store = open_store(config)
    client = store.client
    run = client.create_run(experiment_id(store, config), run_name=name, tags=dict(tags))
    status = "FAILED"
    try:
        yield TrackedRun(store, run.info.run_id)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run.info.run_id, status)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
