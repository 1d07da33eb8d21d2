"""A pynetdicom server with bounded threads, memory and waiting times."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from pipeline.config.listening import ReceptionLimits

LARGEST_PDU: Final = 131_072  # bytes that we ask senders to keep to
_PDU_ALLOWANCE: Final = 16_384  # for the headers of a PDU, and for association requests with many contexts
_SPARE: Final = 16  # associations beyond the limit that are still rejected by the protocol
_TOO_MANY: Final = bytes([3, 0, 0, 0, 0, 4, 0, 2, 3, 2])  # A-ASSOCIATE-RJ: transient, local limit exceeded
_BLOCK: Final = 65_536


class BoundedSocket(AssociationSocket):
    """A socket that refuses overlong PDUs and objects, and does not wait for ever inside one.

    Args:
        association: that it belongs to.
        client_socket: connected.
        limits: of the configuration.

    Attributes:
        object_bytes: received since the last object was complete; the handler that completes one sets it to 0.
    """

    def __init__(self, association: Association, client_socket: socket.socket, limits: ReceptionLimits) -> None:
        super().__init__(association, client_socket=client_socket)
        self._limits, self.object_bytes = limits, 0

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly so many bytes; fewer when the other side ends the connection.

        Raises:
            OSError: when they are too many or too late; pynetdicom then ends the association.
        """
        if nr_bytes > LARGEST_PDU + _PDU_ALLOWANCE:
            raise OSError(f"a PDU of {nr_bytes} bytes")
        self.object_bytes += nr_bytes
        if self.object_bytes > self._limits.object_mb * 10**6:
            raise OSError("an object above the limit")
        data = bytearray(nr_bytes)
        view, end = memoryview(data), time.monotonic() + self._limits.idle_seconds
        while view:
            connection = self.socket
            if connection is None:
                raise OSError("the connection is closed")
            connection.settimeout(max(end - time.monotonic(), 0.001))
            count = connection.recv_into(view, min(len(view), _BLOCK))
            if not count:
                return data[: nr_bytes - len(view)]
            view = view[count:]
            connection.settimeout(self._limits.idle_seconds)  # for what is sent
        return data


class _Request(RequestHandler):
    """One connection, from the TLS handshake to its end, in a thread of its own."""

    server: BoundedServer

    def handle(self) -> None:
        """Serve the association, and wait until it has ended."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.server.limits.idle_seconds)
            self.request.do_handshake()
        association = self._create_association()
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        association.join(self.server.limits.association_seconds)
        if association.is_alive():
            association.abort()
        association.join()
        message = association.dimse.message
        incoming = None if message is None else getattr(message, "_data_set_file", None)
        if incoming is not None:  # the association ended inside an object
            incoming.discard()

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul.socket = BoundedSocket(association, self.request, self.server.limits)
        association.dul.event_queue.get_nowait()  # both sockets have announced the connection
        return association


class BoundedServer(ThreadedAssociationServer):
    """Takes so many connections at a time, and refuses the others without a thread.

    Args:
        args: of pynetdicom's server.
        limits: of the configuration.
        keywords: of pynetdicom's server.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *args: Any, limits: ReceptionLimits, **keywords: Any) -> None:
        self.limits = limits
        self._slots = threading.BoundedSemaphore(limits.associations + _SPARE)
        super().__init__(*args, **{**keywords, "request_handler": _Request})

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its TLS handshake runs in its own thread, because it may never end."""
        assert self.socket is not None
        client, address = self.socket.accept()
        if self.ssl_context is not None:
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for another connection; otherwise the sender is rejected."""
        if self._slots.acquire(blocking=False):
            return True
        with contextlib.suppress(OSError):
            if self.ssl_context is None:
                request.settimeout(0)
                request.send(_TOO_MANY)
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and release its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.shutdown_request(request)
            self._slots.release()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread, or release its slot where the system has no thread left."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self._slots.release()
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: broken connections are usual, and a traceback may hold patients' data."""
