"""One served model for all tests of this folder."""

from __future__ import annotations

import pytest
from serving import serve_when_ready
from tiny_models import write_model, write_scans


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Small scans of lesions at (0, 0, 0)."""
    return write_scans(tmp_path_factory.mktemp("served_scans"), 4)


@pytest.fixture(scope="session")
def served(tiny_model, tmp_path_factory):
    with serve_when_ready(tiny_model, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client
    assert served.uploads() == []  # whatever a test has sent
