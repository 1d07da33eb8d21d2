"""Where real and damaged scans lie that this repository does not hold; tests that need them skip without them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MALIGNANCY_SHARED_DATA", ROOT.parent / "shared"))


def shared(part: str) -> Path:
    """A file or folder of the shared data, or a skipped test."""
    if not (SHARED / part).exists():
        pytest.skip(f"no {SHARED / part}; name the folder of shared data in MALIGNANCY_SHARED_DATA")
    return SHARED / part
