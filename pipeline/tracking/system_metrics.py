"""System metrics during a training: MLflow's own measures, in its own tab, through the run's spool."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline.tracking.runs import TrackedRun

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

_SECONDS = 10.0


@contextmanager
def system_metrics(run: TrackedRun) -> Iterator[None]:
    """Record processor, memory, disk, network and NVIDIA GPU every ten seconds, as ``system/…``.

    MLflow's own thread calls the server each time and stops at the first failure; here measurements wait on disk.
    ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false`` turns it off; ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` is the
    time between two samples in seconds.
    """
    from mlflow.environment_variables import (
        MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
    )

    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set() and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _SECONDS
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(run, seconds, ended), name="system-metrics", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join()


def _sample(run: TrackedRun, seconds: float, ended: threading.Event) -> None:
    monitors, step = _monitors(), 0
    while not ended.wait(seconds):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        run.metrics({f"system/{name}": value for name, value in values.items()}, step=step)
        step += 1


def _monitors() -> list[BaseMetricsMonitor]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # there is no GPU, or no package that can ask it
        monitors.append(GPUMonitor())
    return monitors
