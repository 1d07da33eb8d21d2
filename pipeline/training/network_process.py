"""What a process that fits a network does before it imports torch; light, since every such process imports it first."""

from __future__ import annotations

import os
import threading
import time

from pipeline.imaging.lean_monai import install
from pipeline.machine import ensure_user_name


def start(parent: int) -> None:
    """Set the process up.

    Args:
        parent: process id of the training. With its end, even by ``kill -9``, this process ends too: a resumed training
            must not find another one that still writes the same checkpoints.
    """
    ensure_user_name()
    install()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
