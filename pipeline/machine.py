"""What the machine that the program runs on offers, on Linux and macOS."""

from __future__ import annotations

import gc
import os
import pwd
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROC, _CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")  # NVIDIA, Jetson, AMD, WSL


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Look for no garbage inside, in the whole process; for imports, which make many objects and keep them.

    Importing MLflow, torch and MONAI, Python spends a fifth of the time on looking through them again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def may_have_gpu() -> bool:
    """Whether this machine has a device file of a GPU; whether torch can use it is not checked."""
    return any(Path(device).exists() for device in _GPU_DEVICES)


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a container or under ``taskset``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    quota = _cpu_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def limit_threads_to_quota() -> None:
    """Start no more threads than the cores that a container's CPU quota grants, which torch does not look at.

    OpenMP reads ``OMP_NUM_THREADS`` when torch is imported; what the user has set stays.
    """
    if "OMP_NUM_THREADS" not in os.environ and _cpu_quota() is not None:
        os.environ["OMP_NUM_THREADS"] = str(usable_cores())


def _cpu_quota() -> float | None:
    """CPU quota of this process's control groups (as of a container), in cores; None without a limit."""
    quotas = [quota for quota in map(_quota_of, _control_groups()) if quota is not None]
    return min(quotas, default=None)


def _control_groups() -> Iterator[Path]:
    """Folders of the control groups that limit this process's time: its own and those around it."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:  # not on macOS
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = _CONTROL_GROUPS / ("cpu" if controllers else "")
            group = root / path.lstrip("/")
            yield from (group, *(parent for parent in group.parents if parent.is_relative_to(root)))


def _quota_of(group: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period, *_ = " ".join((group / name).read_text() for name in names).split()
            if quota != "max" and float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None


def peak_memory_megabytes() -> float:
    """The most memory that this process has held, in MB of 2**20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux KiB


def ensure_user_name() -> None:
    """Give a user without a passwd entry, as in many containers, a name, which torch and MLflow need.

    Python's ``getpass.getuser`` reads ``USER`` first, and ends in a ``KeyError`` where nothing tells the name.
    """
    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = f"uid{os.getuid()}"
