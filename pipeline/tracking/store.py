"""Opening the MLflow store: settings, one migration under a lock, the experiment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.experiment import Tracking
from pipeline.errors import UsageError
from pipeline.machine import garbage_collection_paused
from pipeline.redaction import redact
from pipeline.tracking.faults import StoreError, store_faults, store_reason
from pipeline.tracking.relocation import follow_moved_artifacts
from pipeline.tracking.sqlite_file import migration_lock, require_sound, sqlite_path, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_ENVIRONMENT = "MLFLOW_TRACKING_URI"
_SETTINGS = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # MLflow's default is true: a model could run code on load
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # its defaults wait over a minute for a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "PGCONNECT_TIMEOUT": "10",
}
_TRIES = 2  # to reach a database


@dataclass(frozen=True)
class Store:
    """An open tracking store.

    Attributes:
        client: MLflow's.
        uri: where runs and models are recorded.
    """

    client: MlflowClient
    uri: str

    @property
    def shown(self) -> str:
        """The URI as it may be printed and written: without a password."""
        return redact(self.uri)


def tracking_uri(config: Tracking) -> str:
    """The store's URI: ``MLFLOW_TRACKING_URI`` when it is set, else the configuration's; sqlite paths made absolute.

    MLflow caches stores by their URI, so a relative one would keep referring to the folder it was first opened in.
    """
    return sqlite_uri(os.environ.get(_ENVIRONMENT) or config.uri)


def load_mlflow() -> None:
    """Import MLflow, with this project's settings in the environment before its import."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with garbage_collection_paused():
        import mlflow
        import mlflow.store.db.utils  # noqa: F401  # needed by a database store; its import takes as long again


def open_store(config: Tracking) -> Store:
    """Connect to the store and bring its schema up to date, once, also when several processes start together.

    A SQLite store that was moved or copied with its artifacts is made to name them where they are now.

    Raises:
        StoreError: when the store cannot be used, with its own reason.
    """
    load_mlflow()
    import mlflow

    # MLflow prints a traceback, with the values of the statement, of each fault that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = tracking_uri(config)
    environment_uri = os.environ.get(_ENVIRONMENT)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if environment_uri is None:  # MLflow sets it, and it would override the next configuration
        os.environ.pop(_ENVIRONMENT, None)
    try:
        with _migrating(sqlite_path(uri)), _quiet_and_brief():
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    except store_faults() as error:
        reason = store_reason(error, otherwise="check tracking.uri and the server")
        raise StoreError(f"tracking store {redact(uri)} cannot be reached: {reason}") from error
    return Store(client, uri)


def experiment_id(store: Store, config: Tracking) -> str:
    """The configured experiment, created with its own artifact location when the store is a local database.

    Raises:
        UsageError: when it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = store.client.get_experiment_by_name(config.experiment)
    if experiment:
        return _living(experiment, store)
    location = None if store.uri.startswith("http") else (config.artifacts.absolute() / config.experiment).as_uri()
    try:
        return str(store.client.create_experiment(config.experiment, artifact_location=location))
    except MlflowException:
        experiment = store.client.get_experiment_by_name(config.experiment)  # another process was first
        if experiment is None:
            raise
        return _living(experiment, store)


def _living(experiment: Experiment, store: Store) -> str:
    if experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UsageError(
            f"tracking.experiment: {experiment.name!r} was deleted in {store.shown}; restore it with "
            f"`MLFLOW_TRACKING_URI={store.shown} {restore}`, or name another"
        )
    return str(experiment.experiment_id)


def experiment_of(store: Store, run_id: str, *, otherwise: str) -> str:
    """Name of the experiment that a run belongs to; ``otherwise`` when the run is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return str(store.client.get_experiment(store.client.get_run(run_id).info.experiment_id).name)
    except MlflowException:
        return otherwise


@contextmanager
def _migrating(path: Path | None) -> Iterator[None]:
    """Context for opening a SQLite file; an empty one for another store."""
    if path is None:
        yield
        return
    require_sound(path)
    with migration_lock(path):
        yield
        for old, new in follow_moved_artifacts(path):
            print(
                f"tracking store {path}: was moved or copied; what it names in {old} is now read from {new}",
                file=sys.stderr,
            )


@contextmanager
def _quiet_and_brief() -> Iterator[None]:
    """Silence Alembic's fifty migration messages, and shorten MLflow's retries of a dead database."""
    from mlflow.store.db import utils

    tries, utils.MAX_RETRY_COUNT = utils.MAX_RETRY_COUNT, _TRIES
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        utils.MAX_RETRY_COUNT = tries
