"""One MLflow run a training: opened and closed by its explicit id, never left open."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.experiment import Tracking
from pipeline.redaction import redact
from pipeline.tracking.faults import StoreError, store_faults, store_reason
from pipeline.tracking.spool import MeasurementSpool, replay
from pipeline.tracking.store import Store, experiment_id, open_store

if TYPE_CHECKING:
    import pandas as pd

_VALUE_LIMIT = 6000  # characters of a parameter's value that MLflow stores
_FOREIGN = re.compile(r"[^\w.\- ]")  # what a parameter's name must not hold
_BATCH = 100  # parameters that MLflow takes at once


@dataclass(frozen=True)
class TrackedRun:
    """A running MLflow run; implements ``pipeline.training.Tracker``.

    Attributes:
        store: open.
        run_id: MLflow's.
        spool: takes the metrics.
    """

    store: Store
    run_id: str
    spool: MeasurementSpool

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record named numbers; the step is the epoch while training. Never waits for the server."""
        self.spool.add(values, step=step)

    def params(self, tree: Mapping[str, Any]) -> None:
        """Record a nested configuration under dotted names."""
        from mlflow.entities import Param

        # Names of columns are part of some, and a store takes no other characters in a name.
        params = [Param(_FOREIGN.sub("_", name), redact(value)[:_VALUE_LIMIT]) for name, value in _flat(tree)]
        for start in range(0, len(params), _BATCH):
            self.store.client.log_batch(self.run_id, params=params[start : start + _BATCH])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; ``mlflow.note.content`` is the Markdown note on the run's page."""
        from mlflow.entities import RunTag

        self.store.client.log_batch(self.run_id, tags=[RunTag(name, redact(value)) for name, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file or a folder's files under the run."""
        if path.is_dir():
            self.store.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.store.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Store a text under the run as a file of this name."""
        self.store.client.log_text(self.run_id, redact(text), name)

    def figure(self, png: bytes, name: str) -> None:
        """Store a finished picture under the run."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(png)
            self.artifact(path)

    def json(self, value: Mapping[str, Any], name: str) -> None:
        """Store plain JSON values under the run as a file of this name."""
        self.store.client.log_text(self.run_id, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), name)

    def dataset(self, table: pd.DataFrame, *, name: str, digest: str, source: str, context: str) -> None:
        """Record which data the run used; ``digest`` covers manifest, labels, splits and image bytes."""
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag

        targets = "label" if "label" in table else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints about whole numbers and sources, which users cannot act on
            dataset = mlflow.data.from_pandas(table, source=source, targets=targets, name=name, digest=digest[:32])
            entity = dataset._to_mlflow_entity()
        tag = InputTag("mlflow.data.context", context)
        self.store.client.log_inputs(self.run_id, [DatasetInput(entity, [tag])])


@contextmanager
def open_run(
    config: Tracking, *, name: str, tags: Mapping[str, str], resume: str | None = None
) -> Iterator[TrackedRun]:
    """A new run (or that with the id ``resume``), always closed: FINISHED, FAILED, or KILLED by Ctrl-C.

    Measurements and runs that ended processes could not send or close are sent and closed first.

    Raises:
        StoreError: when the store cannot be used, or another process has the run open.
        UsageError: when the experiment was deleted.
    """
    store = open_store(config)
    folder = spool_folder(config)
    try:
        replay(
            folder, store, lambda experiment: experiment_id(store, config.model_copy(update={"experiment": experiment}))
        )
        if resume:
            run_id = resume
            store.client.update_run(run_id, status="RUNNING")
        else:
            shown = {key: redact(value) for key, value in tags.items()}
            run = store.client.create_run(experiment_id(store, config), run_name=redact(name), tags=shown)
            run_id = str(run.info.run_id)
        spool = MeasurementSpool(folder, store, run_id)
    except FileExistsError:
        raise StoreError(f"run {run_id} is still being trained by another process; wait for it, or end it") from None
    except store_faults() as error:
        raise StoreError(f"tracking store {store.shown} takes no run: {store_reason(error)}") from error
    status = "FAILED"
    try:
        yield TrackedRun(store, run_id, spool)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except store_faults() as error:
        if not _is_of_store(error, config):
            raise
        raise StoreError(f"tracking store {store.shown} stopped answering: {store_reason(error)}") from error
    finally:
        _close(store, spool, run_id, status)


def _is_of_store(error: Exception, config: Tracking) -> bool:
    """Whether the store is at fault, and not a file or a package of the work that the run is about."""
    from requests import RequestException

    if isinstance(error, RequestException) or not isinstance(error, OSError | ImportError):
        return True
    if isinstance(error, ImportError):
        return False
    folders = (config.artifacts.absolute(), spool_folder(config))
    return error.filename is not None and any(Path(str(error.filename)).is_relative_to(folder) for folder in folders)


def spool_folder(config: Tracking) -> Path:
    """Folder beside the artifacts in which measurements wait for a server that does not answer."""
    return config.artifacts.with_name(f"{config.artifacts.name}-spool").absolute()


def _close(store: Store, spool: MeasurementSpool, run_id: str, status: str) -> None:
    reason = "it does not answer"
    if spool.close(status):
        try:
            store.client.set_terminated(run_id, status)
            spool.forget()
            return
        except store_faults() as error:
            reason = store_reason(error)
            spool.leave(status)
    waiting = f"wait in {spool.path}" if spool.is_whole else f"that fitted on the disk wait in {spool.path}"
    print(
        f"tracking store {store.shown}: {reason}; the run's last measurements {waiting} and are sent when the store is "
        "next opened",
        file=sys.stderr,
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
