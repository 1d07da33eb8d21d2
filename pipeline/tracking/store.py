"""Opening the MLflow store: settings, one migration under a lock, the experiment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.experiment import Tracking
from pipeline.errors import UnfinishedError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_ENVIRONMENT = "MLFLOW_TRACKING_URI"
_SETTINGS = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # MLflow's default is true: a model could run code on load
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # its defaults wait over a minute for a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
}


@dataclass(frozen=True)
class Store:
    """An open tracking store.

    Attributes:
        client: MLflow's.
        uri: where runs and models are recorded.
    """

    client: MlflowClient
    uri: str


def tracking_uri(config: Tracking) -> str:
    """The store's URI: ``MLFLOW_TRACKING_URI`` when it is set, else the configuration's; sqlite paths made absolute.

    MLflow keeps stores by their URI, so a relative one would go on meaning the folder it was first opened in.
    """
    uri = os.environ.get(_ENVIRONMENT) or config.uri
    path = uri.removeprefix(_SQLITE)
    return uri if path == uri or path.startswith("/") else f"{_SQLITE}{Path(path).absolute()}"


def open_store(config: Tracking) -> Store:
    """Connect to the store and bring its schema up to date, once, whoever else starts at the same time.

    Raises:
        UnfinishedError: when the store cannot be reached.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(config)
    given = os.environ.get(_ENVIRONMENT)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if given is None:  # MLflow puts its URI there; left there, it would win over the next configuration
        os.environ.pop(_ENVIRONMENT, None)
    try:
        with _migration_lock(uri), _silent_migrations():
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    except (MlflowException, OSError) as error:
        raise UnfinishedError(
            f"tracking store {uri} cannot be reached ({type(error).__name__}); check tracking.uri and the server"
        ) from error
    return Store(client, uri)


def experiment_id(store: Store, config: Tracking) -> str:
    """The configured experiment, created with its own artifact location when the store is a local database."""
    from mlflow.exceptions import MlflowException

    found = store.client.get_experiment_by_name(config.experiment)
    if found:
        return str(found.experiment_id)
    location = None if store.uri.startswith("http") else (config.artifacts.absolute() / config.experiment).as_uri()
    try:
        return str(store.client.create_experiment(config.experiment, artifact_location=location))
    except MlflowException:
        found = store.client.get_experiment_by_name(config.experiment)  # another process was first
        if found is None:
            raise
        return str(found.experiment_id)


def experiment_of(store: Store, run_id: str, *, otherwise: str) -> str:
    """Name of the experiment that a run belongs to; ``otherwise`` when the run is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return str(store.client.get_experiment(store.client.get_run(run_id).info.experiment_id).name)
    except MlflowException:
        return otherwise


@contextmanager
def _migration_lock(uri: str) -> Iterator[None]:
    """Hold a lock beside a sqlite file: cold clients that migrate it at the same time break it."""
    if not uri.startswith(_SQLITE):
        yield
        return
    path = Path(uri.removeprefix(_SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "a") as handle:  # never emptied: it may be another program's
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _silent_migrations() -> Iterator[None]:
    """Alembic announces each of its fifty steps; a user needs none of them."""
    import logging

    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
