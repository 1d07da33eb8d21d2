"""The shared memory that loader processes hand batches over in, which containers keep small (64 MB in Docker)."""

from __future__ import annotations

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # its place on Linux, the only one that torch uses
_BATCHES_A_WORKER = 3  # two are read ahead by each process, and one is being used
_REMEDY = "give the container more (docker run --shm-size=2g), or set training.loader_workers=0"
OUT_OF_IT = f"it found no room in {SHARED_MEMORY}, the shared memory; {_REMEDY}"


def too_small(batch_bytes: int, workers: int) -> str | None:
    """Why loader processes would stall for want of shared memory, and the way out; None when there is enough.

    Args:
        batch_bytes: size of a batch.
        workers: processes that read ahead, of both loaders.
    """
    needed = batch_bytes * workers * _BATCHES_A_WORKER
    if not SHARED_MEMORY.is_dir() or (free := shutil.disk_usage(SHARED_MEMORY).free) >= needed:
        return None
    return (
        f"{SHARED_MEMORY}: {free / 1e6:.1f} MB of shared memory are free, and loader processes need "
        f"{needed / 1e6:.1f} MB; {_REMEDY}"
    )
