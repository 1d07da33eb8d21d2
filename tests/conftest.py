"""Fixtures that several rooms' tests share. Nothing is downloaded."""

from __future__ import annotations

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
