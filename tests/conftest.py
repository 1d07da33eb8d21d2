"""Fixtures that several rooms' tests share, and how the tests are spread over processes. Nothing is downloaded."""

from __future__ import annotations

import functools
import os

# A process of several that run tests side by side: OpenMP reads both when NumPy's or torch's libraries are loaded,
# here and in the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import psutil
import pytest
from cohorts import write_cohort
from shared_data import shared

from pipeline.machine import usable_cores

MEMORY_OF_A_WORKER = 3 * 2**30  # bytes; with the processes that its tests start


@pytest.hookimpl(optionalhook=True)  # plain pytest knows no such hook where pytest-xdist is not installed
def pytest_xdist_auto_num_workers() -> int:
    """Processes for ``pytest -n auto``: one a usable core, fewer where memory is short."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    if asked:
        return int(asked)
    return max(1, min(usable_cores(), psutil.virtual_memory().available // MEMORY_OF_A_WORKER))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of files that several processes share, those with slow tests come first: none is left with them at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_data():
    """Real scans beside the checkout, where they are."""
    return shared("data")


@pytest.fixture(scope="session")
def cohort_manifest(tmp_path_factory):
    """A manifest of 96 small scans."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory):
    """A small folder of each kind by name, written when it is first asked for, and the truth about it."""
    from made_folders import FEW, MAKERS  # imports highdicom, which most tests do without

    @functools.cache
    def write(name):
        return MAKERS[name](tmp_path_factory.mktemp(name) / "folder", cases=FEW[name])

    return write


@pytest.fixture(scope="session")
def write_made_folder(tmp_path_factory):
    """Writes a folder of a kind in its default size to a path; later ones are copies of the first."""
    from made_folders import MAKERS
    from whole_made_folders import copy_of

    @functools.cache
    def first(name):
        return MAKERS[name](tmp_path_factory.mktemp(f"whole_{name}") / name)

    return lambda name, folder: copy_of(first(name), folder)
