"""Ctrl-C during a Lightning fit is a KeyboardInterrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl


@contextmanager
def keyboard_interrupts(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt: Lightning turns it into an exit, and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt
