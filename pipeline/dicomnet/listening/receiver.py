"""The C-STORE SCP: a separate process, which ends with the listener that started it."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import pynetdicom
import pynetdicom._config
import pynetdicom.dimse_messages
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.bounded_server import LARGEST_PDU, BoundedServer
from pipeline.dicomnet.listening.child_process import end_with, say
from pipeline.dicomnet.listening.incoming_file import IncomingFile
from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.reception import ReceptionOutcome, read_object_identity, refusal_reason, store_object
from pipeline.dicomnet.listening.space import Space
from pipeline.dicomnet.listening.tls import server_context
from pipeline.errors import CaseError, UsageError

_SUCCESS: Final = 0x0000
_OUT_OF_RESOURCES: Final = 0xA700
_OTHER_OBJECT: Final = 0xA900
_NOT_UNDERSTOOD: Final = 0xC000
_BIND_SECONDS: Final = 10.0  # that the process of a killed listener may take to release the port


@dataclass(frozen=True)
class ReceiverStart:
    """Message of the process when it has started, or cannot start.

    Attributes:
        port: that it listens on; 0 when it cannot.
        problem: why it cannot, blank when it does.
    """

    port: int
    problem: str = ""


def run_receiver(config: ListenConfig, parent: Connection) -> None:
    """Receive until the other end of the connection is closed; a `ReceiverStart` is sent over it first.

    Args:
        config: of the listener.
        parent: nothing is received over it but its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    logging.disable(logging.CRITICAL)  # pynetdicom and pydicom may quote what they receive
    receiver = Receiver(config)
    try:
        server = receiver.bind()
    except (OSError, UsageError) as error:
        say(parent, ReceiverStart(0, str(error)))
        return
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    say(parent, ReceiverStart(server.server_address[1]))
    server.serve_forever()


class Receiver:
    """Answers associations, and stores the objects that they send.

    Args:
        config: of the listener.
    """

    def __init__(self, config: ListenConfig) -> None:
        self._config, self._folder = config, ListenerFolder(config.folder)
        self._audit = Audit(self._folder.audit, "receiver")
        self._space = Space(config.folder, config.limits)
        self._counts: dict[int, Counter[str]] = {}

    def bind(self) -> BoundedServer:
        """Listen on the configured address.

        Raises:
            OSError: when the port is taken, or the address is none of this machine's.
        """
        _receive_into_files(self._new_file)
        application = self._application()
        end = time.monotonic() + _BIND_SECONDS
        while True:
            try:
                server = application.make_server(
                    (self._config.address, self._config.port),
                    ssl_context=None if self._config.tls is None else server_context(self._config.tls),
                    evt_handlers=self._handlers(),
                    server_class=BoundedServer,
                    limits=self._config.limits,
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                assert isinstance(server, BoundedServer)
                return server

    def _application(self) -> AE:
        application = AE(ae_title=self._config.ae_title)
        for context in AllStoragePresentationContexts:
            application.add_supported_context(str(context.abstract_syntax), _TRANSFER_SYNTAXES)
        application.add_supported_context(Verification)
        application.require_calling_aet = list(self._config.calling_ae_titles)
        application.require_called_aet = self._config.check_called_ae_title
        application.maximum_associations = self._config.limits.associations
        application.maximum_pdu_size = LARGEST_PDU
        idle = self._config.limits.idle_seconds
        application.acse_timeout = application.dimse_timeout = application.network_timeout = idle
        return application

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_RELEASED, self._ended, ["released"]),
            (evt.EVT_ABORTED, self._ended, ["aborted"]),
            (evt.EVT_CONN_CLOSE, self._ended, ["broken off"]),
        ]

    def _new_file(self, **_: object) -> IncomingFile:
        return IncomingFile(self._folder.receiving, self._why_full)

    def _why_full(self) -> str | None:
        try:
            return self._space.why_full()
        except OSError as error:
            return os.strerror(error.errno or 0)

    def _store(self, event: Any) -> int:
        """Answer a C-STORE; success only when the object would survive a crash of the machine."""
        incoming: IncomingFile = event.request._dataset_file
        event.assoc.dul.socket.object_bytes = 0
        try:
            status, outcome = self._take(incoming, str(event.request.AffectedSOPInstanceUID))
        finally:
            incoming.discard()
        self._count(event, outcome)
        return status

    def _take(self, incoming: IncomingFile, named: str) -> tuple[int, str]:
        if incoming.problem is not None:
            self._audit("object refused", status="A700", reason=incoming.problem)
            return _OUT_OF_RESOURCES, "refused"
        path = incoming.path
        incoming.close()
        try:
            identity = read_object_identity(path)
        except CaseError as error:
            self._audit("object refused", status="C000", reason=refusal_reason(error))
            return _NOT_UNDERSTOOD, "refused"
        if identity is None:
            self._audit("object refused", status="C000", reason="its header lacks a UID, or holds an invalid one")
            return _NOT_UNDERSTOOD, "refused"
        if identity.sop_instance != named:
            self._audit("object refused", status="A900", reason="the object is another one than the request names")
            return _OTHER_OBJECT, "refused"
        size = path.stat().st_size
        try:
            outcome = store_object(self._folder, path, identity)
        except OSError as error:
            self._audit("object refused", status="A700", reason=os.strerror(error.errno or 0))
            return _OUT_OF_RESOURCES, "refused"
        if outcome is ReceptionOutcome.STORED:
            self._space.add(size)
        return _SUCCESS, outcome.value

    def _accepted(self, event: evt.Event) -> None:
        self._counts[id(event.assoc)] = Counter()

    def _count(self, event: evt.Event, outcome: str) -> None:
        self._counts.setdefault(id(event.assoc), Counter())[outcome] += 1

    def _rejected(self, event: evt.Event) -> None:
        self._audit("association refused", **self._peer(event))

    def _ended(self, event: evt.Event, how: str) -> None:
        counts = self._counts.pop(id(event.assoc), None)
        if counts is not None:
            details = {outcome.replace(" ", "_"): count for outcome, count in sorted(counts.items())}
            self._audit("association ended", how=how, **self._peer(event), **details)

    @staticmethod
    def _peer(event: evt.Event) -> dict[str, str | int | float | None]:
        requestor = event.assoc.requestor
        return {"calling": str(requestor.ae_title), "address": str(requestor.address)}


_TRANSFER_SYNTAXES: Final = [syntax for syntax in AllTransferSyntaxes if not syntax.is_private]


def _receive_into_files(new_file: Any) -> None:
    """Have pynetdicom write arriving objects to our files, and not hold them in memory.

    pynetdicom can write to files but not to given ones, so the class that makes its files is replaced, in this process
    alone.
    """
    pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    pynetdicom.dimse_messages.NamedTemporaryFile = new_file  # type: ignore[attr-defined]
