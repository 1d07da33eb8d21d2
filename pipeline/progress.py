"""What a person sees while something takes long: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_EVERY_SECONDS = 5.0


def progress_lines(items: Iterable[_Item], what: str, *, total: int | None = None) -> Iterator[_Item]:
    """The items, with what has been done of them told on stderr.

    On a terminal a bar; elsewhere a line every five seconds, and none when all is done sooner.

    Args:
        items: what is worked on; each counts when the next is asked for.
        what: is done, as ``scans read``.
        total: how many there are; None when that is not known.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, what, total=total, console=Console(stderr=True), transient=True)
        return
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= _EVERY_SECONDS:
            print(progress_line(what, done, total, now - started), file=sys.stderr, flush=True)
            told = now
        yield item


def progress_line(what: str, done: int, total: int | None, seconds: float) -> str:
    """As ``scans read: 120 of 500, 12.0 a second, 32 s left``."""
    rate = done / seconds if seconds > 0 else 0.0
    of = f" of {total}" if total is not None else ""
    left = f", {duration((total - done) / rate)} left" if total is not None and rate > 0 else ""
    return f"{what}: {done}{of}, {rate:.1f} a second{left}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
