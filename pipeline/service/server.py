"""Running the application until it is told to end."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import UsageError
from pipeline.service.connections import bounded_protocol
from pipeline.service.settings import ServiceSettings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 30  # for requests under way when the server is told to end


class Server(uvicorn.Server):
    """uvicorn, which ends at SIGINT and SIGTERM and then returns, so that what surrounds it is tidied up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle both signals while the block runs; uvicorn itself would send them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._end) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """End as after a signal; from any thread."""
        self.should_exit = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


def build_server(app: ASGIApp, settings: ServiceSettings) -> Server:
    """A server for sockets that listen already."""
    config = uvicorn.Config(
        app,
        http=bounded_protocol(connections=settings.limits.connections, head_seconds=settings.limits.head_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # its lines hold queries, which may name a patient
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=settings.certificate,
        ssl_keyfile=None if settings.key is None else str(settings.key),
    )
    return Server(config)


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: when the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}; choose another address") from None
    return listener
