"""Connections that end: uvicorn's protocol with a time for a request's head and for what follows an early answer."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL_BODY = b'{"error":{"code":null,"reason":"too many connections; connect again later"}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL_BODY), _FULL_BODY)
)


def bounded_protocol(*, connections: int, head_seconds: float) -> type[H11Protocol]:
    """The protocol with its bounds; uvicorn makes one for each connection.

    Args:
        connections: open at the same time; a further one is told so and closed.
        head_seconds: that the head of a request may take, and the rest of a body whose answer was sent already.
    """

    class BoundedProtocol(H11Protocol):
        """One connection."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                transport.write(_FULL)
                transport.close()
            else:
                self._set_deadline()

        def connection_lost(self, exc: Exception | None) -> None:
            self._clear_deadline()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:  # part of a head
                self._set_deadline()
            elif not self._answered_early():
                self._clear_deadline()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._answered_early():  # what is left of the body is taken and thrown away, for so long
                self._set_deadline()

        def _answered_early(self) -> bool:
            return self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete

        def _set_deadline(self) -> None:
            if self._deadline is None:
                self._deadline = self.loop.call_later(head_seconds, self._end)

        def _clear_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _end(self) -> None:
            self.transport.abort()

        def _unsupported_upgrade_warning(self) -> None:
            """An upgrade is not offered, and not worth a line for each who asks."""

    return BoundedProtocol
