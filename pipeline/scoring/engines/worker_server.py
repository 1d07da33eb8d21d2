"""The server that forks scoring workers: a process that imports torch and MONAI once, for all of them.

Its imports take most of the time of a short run, so the command starts it before it imports anything else.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from pipeline.imaging.lean_imports import is_installed

_WORKER, _LEAN_WORKER = "pipeline.scoring.engines.worker_process", "pipeline.scoring.engines.worker_preload"


def context() -> Any:
    """Processes forked from the server: quick to start, and sharing its memory."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([_LEAN_WORKER if is_installed() else _WORKER])
    return forkserver


def start_server() -> None:
    """Start the server unless it runs, and return while it still imports."""
    context()
    # A Ctrl-C is for the process that collects the rows; the mask is inherited, and only delays the signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_server_for(words: Sequence[str]) -> None:
    """Start the server before the command line is parsed, where it reads ``score MODEL INPUT ... --out DIR``.

    Args:
        words: of the command line; others than these are left for when they have been parsed.
    """
    if {"--help", "--engine"}.isdisjoint(words) and "--out" in words[3:-1]:
        out = Path(words[words.index("--out") + 1])
        start_server_early(words[1], words[2], out, restart="--restart" in words)


def start_server_early(models: str, source: str, out: Path, *, restart: bool) -> None:
    """Start the server if, by the names given, a run will need it: with a model, an input and nothing scored yet.

    Args:
        models: one model, or several joined by commas.
        source: manifest, folder, scan or URL.
        out: output folder.
        restart: whether what the folder holds is set aside.
    """
    names = [name.strip() for name in models.split(",")]
    there = all(":/" in name or Path(name).is_dir() for name in names) and ("://" in source or Path(source).exists())
    if there and (restart or not (out / "parts").exists()):
        start_server()
