"""A process that works beside the listener, ends with it, and is started again when it dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.errors import UnfinishedError

_START_SECONDS: Final = 60.0
_MOST_FAILURES: Final = 5
_PAUSE_SECONDS: Final = 1.0  # between the death of a process and its next start


def say(parent: Connection, word: object) -> None:
    """Send a message to the parent process; its death is noticed by `end_with`."""
    with contextlib.suppress(OSError):
        parent.send(word)


def end_with(parent: Connection) -> NoReturn:
    """Wait for the end of the parent process, and end at once: the files record what is left to do."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os._exit(0)


class ChildProcess:
    """One process and the connection whose end it ends with.

    Args:
        name: in audit lines and errors.
        target: function that runs in it; it sends a message over the connection when it is ready.
        config: handed to it.
        audit: of the listener.
    """

    def __init__(
        self, name: str, target: Callable[[ListenConfig, Connection], None], config: ListenConfig, audit: Audit
    ) -> None:
        self._name, self._target, self._config, self._audit = name, target, config, audit
        self._process: Any = None
        self._connection: Connection | None = None
        self._died_at, self._failures = -_PAUSE_SECONDS, 0

    def start(self) -> Any:
        """Start it, wait until it is ready, and return its first message.

        Raises:
            UnfinishedError: when it dies, or sends nothing.
        """
        self.begin()
        return self.first_word()

    def begin(self) -> None:
        """Start it."""
        context = multiprocessing.get_context("spawn")
        own_end, child_end = context.Pipe()
        self._process = context.Process(target=self._target, args=(self._config, child_end), daemon=True)
        self._process.start()
        child_end.close()
        self._connection = own_end

    def first_word(self) -> Any:
        """Its message when it is ready.

        Raises:
            UnfinishedError: when it dies, or sends nothing.
        """
        with contextlib.suppress(EOFError, OSError):
            if self._connection is not None and self._connection.poll(_START_SECONDS):
                return self._connection.recv()
        self.stop()
        raise UnfinishedError(f"the {self._name} did not start; look at its last lines above, and at the machine")

    def keep_alive(self) -> None:
        """Start it again when it is dead and was not started a moment ago.

        Raises:
            UnfinishedError: when it could not be started several times in a row.
        """
        if self._process is not None and self._process.is_alive():
            return
        now = time.monotonic()
        if now - self._died_at < _PAUSE_SECONDS:
            return
        self._died_at = now
        code = None if self._process is None else self._process.exitcode
        self._audit(f"{self._name} died", exit_code=code)
        if self._connection is not None:
            self._connection.close()
        try:
            self.start()
        except UnfinishedError:
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                raise
            self._audit(f"{self._name} did not start", tries=self._failures)
        else:
            self._failures = 0
            self._audit(f"{self._name} started again")

    def stop(self) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
