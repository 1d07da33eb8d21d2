"""What the machine that the program runs on offers, on Linux and macOS."""

from __future__ import annotations

import os
import pwd
import resource
import sys
from pathlib import Path

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")  # NVIDIA, Jetson, AMD, WSL


def may_have_gpu() -> bool:
    """Whether this machine shows a device that torch could compute on; whether torch can, it alone knows."""
    return any(Path(device).exists() for device in _GPU_DEVICES)


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a container or under ``taskset``."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_megabytes() -> float:
    """The most memory that this process has held, in MB of 2**20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux KiB


def ensure_user_name() -> None:
    """Give a user without a passwd entry, as containers start programs, a name: torch and MLflow ask for one.

    Python's ``getpass.getuser`` reads ``USER`` first, and ends in a ``KeyError`` where nothing tells the name.
    """
    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = f"uid{os.getuid()}"
