"""Rendering in several processes, each a fresh interpreter.

A pool of processes would run the caller's main module again where processes are spawned, and copy its threads' locks
where they are forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.errors import UnfinishedError


def render_in_processes(render_share: Callable[[], None], task: Mapping[str, Any], workers: int) -> None:
    """Call a function in several processes, and wait for all of them.

    Args:
        render_share: public function of an importable module; it reads its task with `given_task`.
        task: values that JSON knows; each process gets them with its ``share`` (from 0) of so many ``shares``.
        workers: how many processes.

    Raises:
        UnfinishedError: when one of them failed; the others are stopped.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    name = render_share.__name__
    with ExitStack() as stack:
        started = []
        for share in range(workers):
            text = json.dumps({**task, "share": share, "shares": workers})
            command = [sys.executable, "-c", f"from {render_share.__module__} import {name}; {name}()", text]
            process = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))  # noqa: S603
            stack.callback(process.terminate)
            started.append(process)
        for process in started:
            _, errors = process.communicate()
            if process.returncode:
                last = (errors.strip().splitlines() or ["no message"])[-1]
                raise UnfinishedError(f"rendering stopped with exit status {process.returncode}: {last}")


def given_task() -> dict[str, Any]:
    """The task of a process that `render_in_processes` started."""
    task: dict[str, Any] = json.loads(sys.argv[-1])
    return task
