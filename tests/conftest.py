"""Fixtures that several rooms' tests share. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from cohorts import write_cohort

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data():
    """Real scans beside the checkout, where they are."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout: real scans are not part of the project")
    return SHARED / "data"


@pytest.fixture(scope="session")
def cohort_manifest(tmp_path_factory):
    """A manifest of 96 small scans."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))
