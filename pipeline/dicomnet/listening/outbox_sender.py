"""The process that empties the outbox: a thread for each destination, so that none waits for another."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import Final

from pipeline.config.listening import CStore, ListenConfig, Retry, Stow
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.child_process import end_with, say
from pipeline.dicomnet.listening.destinations import Answer, Sender, sender_of
from pipeline.dicomnet.listening.listener_folder import ListenerFolder, ResultName
from pipeline.dicomnet.listening.outbox import Outbox

_LOOK_SECONDS: Final = 0.5


def run_sender(config: ListenConfig, parent: Connection) -> None:
    """Send until the other end of the connection is closed.

    Args:
        config: of the listener; its secrets were found to be there.
        parent: nothing is received over it but its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    logging.disable(logging.CRITICAL)  # pynetdicom and pydicom may quote what they send
    folder = ListenerFolder(config.folder)
    outbox, audit = Outbox(folder), Audit(folder.audit, "sender")
    names = [destination.name for destination in config.destinations]
    for destination in config.destinations:
        delivery = Delivery(destination, config, outbox, audit)
        threading.Thread(target=delivery.run, args=(names,), daemon=True).start()
    say(parent, "ready")
    end_with(parent)  # a result that is partly sent is sent again


class Backoff:
    """Seconds to wait after failures that follow one another: doubled each time, up to a limit, less a random part.

    Args:
        retry: of the configuration.
        rng: for the random part, which keeps several senders from coming back all at once.
    """

    def __init__(self, retry: Retry, rng: random.Random) -> None:
        self._retry, self._rng, self._failures = retry, rng, 0

    def success(self) -> None:
        """Reset."""
        self._failures = 0

    def failure(self) -> float:
        """Seconds before the next try."""
        wait = min(self._retry.first_seconds * 2.0 ** min(self._failures, 60), self._retry.longest_seconds)
        self._failures += 1
        return wait * self._rng.uniform(0.5, 1.0)


class Delivery:
    """Sends the waiting results to one destination.

    Args:
        destination: of the configuration.
        config: of the listener.
        outbox: of the listener.
        audit: of the listener.
        sender: by default that of the destination's kind.
    """

    def __init__(
        self,
        destination: CStore | Stow,
        config: ListenConfig,
        outbox: Outbox,
        audit: Audit,
        sender: Sender | None = None,
    ) -> None:
        self._name, self._retry = destination.name, config.retry
        self._outbox, self._audit = outbox, audit
        self._sender = sender or sender_of(destination, config.retry, own_title=config.ae_title)
        self._refusals: Counter[ResultName] = Counter()
        self._backoff = Backoff(config.retry, random.Random())  # noqa: S311  # spreads retries; no secret

    def run(self, destinations: list[str]) -> None:
        """Send for ever; an internal fault ends the process, which the listener starts again."""
        try:
            while True:
                try:
                    wait = self.step(destinations)
                except (
                    OSError
                ) as error:  # a full disk: results sent but not recorded are sent again, as the same objects
                    wait = self._backoff.failure()
                    self._audit("outbox not read or written", destination=self._name, reason=error.strerror)
                time.sleep(wait)
        except Exception as error:  # noqa: BLE001  # it would go unnoticed in a thread
            self._audit("sender failed", destination=self._name, reason=type(error).__name__)
            os._exit(1)

    def step(self, destinations: list[str]) -> float:
        """Send the waiting results until the destination cannot be reached.

        Args:
            destinations: names of all of them, which a result must have been given to before it leaves the outbox.

        Returns:
            Seconds to wait.
        """
        refused = False
        for name in self._outbox.waiting(self._name):
            try:
                answer = self._sender.send(self._outbox.objects(name))
            except FileNotFoundError:  # moved away by hand
                continue
            except Exception as error:  # noqa: BLE001  # the other results and destinations must go on
                answer = Answer("refused", type(error).__name__)
            if answer.outcome == "unreachable":
                wait = self._backoff.failure()
                self._audit(
                    "not sent",
                    result=str(name),
                    destination=self._name,
                    reason=answer.reason,
                    retry_seconds=round(wait, 1),
                )
                return wait
            self._backoff.success()
            refused |= not self._settle(name, answer, destinations)
        return self._retry.first_seconds if refused else _LOOK_SECONDS

    def _settle(self, name: ResultName, answer: Answer, destinations: list[str]) -> bool:
        """Record the answer; False when the result is to be sent again."""
        if answer.outcome == "sent":
            self._outbox.mark(name, self._name, {}, sent=True)
            self._audit("sent", result=str(name), destination=self._name)
        else:
            self._refusals[name] += 1
            tries = self._refusals[name]
            self._audit("refused", result=str(name), destination=self._name, reason=answer.reason, tries=tries)
            if tries < self._retry.refusals:
                return False
            self._outbox.mark(name, self._name, {"reason": answer.reason, "tries": tries}, sent=False)
        self._refusals.pop(name, None)
        place = self._outbox.settle(name, destinations)
        if place is not None:
            self._audit("moved", result=str(name), to=place)
        return True
