"""A migrated store that tests copy: migrating one takes seconds."""

import shutil

import pytest

from pipeline.config.experiment import Tracking
from pipeline.tracking.store import open_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An SQLite store with nothing in it."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(Tracking(uri=f"sqlite:///{path}"))
    return path


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    """A user's folder with an empty store in it, as the current one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    return folder
