"""Progress of long tasks: a bar of 80 columns on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_Item = TypeVar("_Item")
_EVERY_SECONDS = 5.0
_COLUMNS, _BAR_COLUMNS = 80, 16


class ProgressReport:
    """How far a task is, on stderr.

    A bar on a terminal; elsewhere a line at most every few seconds, so that the log of a long run stays readable, and
    none for a shorter task.

    Args:
        what: is done, as ``scans read``.
        total: how many there are; None when that is not known.
        done: how many are done already.
        every_seconds: between two lines.
    """

    def __init__(
        self, what: str, *, total: int | None = None, done: int = 0, every_seconds: float = _EVERY_SECONDS
    ) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._every, self._started = every_seconds, time.monotonic()
        self._told = self._started
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, note: str = "", *, seconds_left: float | None = None, last: bool = False) -> None:
        """One more is done.

        Args:
            note: what else to say, as a loss.
            seconds_left: when that is known better than from the pace so far.
            last: say it whenever the last line was.
        """
        self._done += 1
        now = time.monotonic()
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        if seconds_left is None and self._total is not None:
            seconds_left = (self._total - self._done) / rate
        left = f"{duration(seconds_left)} left" if seconds_left is not None else f"{rate:.1f} a second"
        if self._bar is not None and self._task is not None:
            room = (
                self._bar.console.width - len(self._what) - _BAR_COLUMNS - 2 * len(str(self._total or self._done)) - 5
            )
            self._bar.update(self._task, advance=1, note=", ".join(filter(None, (note, left)))[: max(room, 0)])
        elif last or now - self._told >= self._every:
            self._told = now
            of = f" of {self._total}" if self._total is not None else ""
            print(", ".join(filter(None, (f"{self._what}: {self._done}{of}", note, left))), file=sys.stderr, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    console.width = min(console.width, _COLUMNS)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=_BAR_COLUMNS),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # What is printed meanwhile goes its own way (`pipeline.console`): rich would take escape sequences for colours.
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def with_progress(items: Iterable[_Item], what: str, *, total: int | None = None) -> Iterator[_Item]:
    """The items, with how far they are told (`ProgressReport`).

    Args:
        items: what is worked on; each counts as done when the next is asked for.
        what: is done, as ``scans read``.
        total: how many there are; None when that is not known.
    """
    with ProgressReport(what, total=total) as report:
        for item in items:
            yield item
            report.advance()


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
