"""Fixtures that several rooms' tests share. Nothing is downloaded."""

from __future__ import annotations

import functools

import pytest
from cohorts import write_cohort
from shared_data import shared


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
