"""Set-up of a process that fits a network, before it imports torch; light, because it is imported first."""

from __future__ import annotations

import os
import threading
import time

from pipeline.imaging.lean_imports import install
from pipeline.machine import ensure_user_name


def start(parent: int) -> None:
    """Set the process up.

    Args:
        parent: process id of the training. When it ends, even by ``kill -9``, this process ends too, so that it does
            not write the same checkpoints as a resumed training.
    """
    ensure_user_name()
    install()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
