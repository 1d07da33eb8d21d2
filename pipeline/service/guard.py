"""What stands before every route: the host's name, the token, counting, and one line in the log."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import UsageError
from pipeline.service.answers import NO_HOST, UNAUTHORIZED, RequestError
from pipeline.service.metrics import ServiceMetrics
from pipeline.service.settings import TOKEN_VARIABLE

_SHORTEST_TOKEN = 16
_OPEN_ROUTES = ("/v2/health/live", "/v2/health/ready")  # asked by orchestrators, and say nothing of anybody
_QUIET_ROUTES = (*_OPEN_ROUTES, "/metrics")  # asked every few seconds
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
GONE = 499  # the client had gone before the answer
_log = logging.getLogger("malignancy.serve")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str | None) -> None:
    """Refuse an address that others reach without a token, and a token that can be guessed.

    Raises:
        UsageError: with what to set.
    """
    if token is None or not token:
        if not is_loopback(host):
            raise UsageError(
                f"--host {host}: other machines could reach it, and there is no token; set {TOKEN_VARIABLE} to a "
                "secret, as of `openssl rand -hex 32`, or leave --host out"
            )
    elif len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{TOKEN_VARIABLE}: expected at least {_SHORTEST_TOKEN} printable ASCII characters without blanks, as of "
            "`openssl rand -hex 32`"
        )


class Guard:
    """ASGI middleware: refuse who may not ask, count and log who did.

    A log line has method, route, status, seconds and bytes; nothing that a request says is in it, since a query, a
    file's name and a case's id may name a patient.

    Args:
        app: what is guarded.
        metrics: that count.
        routes: closed list of routes; any other path is counted as ``other``.
        token: that a request must bear; None for none.
        local_names: refuse requests to other names than this machine's own, as a web page sends that has its name
            resolved to this address.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: ServiceMetrics, routes: Sequence[str], token: str | None, local_names: bool
    ) -> None:
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)
        self._token = None if not token else f"Bearer {token}".encode()
        self._local_names = local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal.response()(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        except Exception as error:  # noqa: BLE001  # answered already; its message may quote a patient's data
            _log.error("%s inside the server", type(error).__name__)
        finally:
            seconds = time.perf_counter() - start
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.count_request(route, status, seconds)
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            if route not in _QUIET_ROUTES:
                _log.info("%s %s %d %.4f s", method, route, status, seconds)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        if self._local_names:
            name = headers.get("host", "").lower()
            name = name if name.endswith("]") else name.rpartition(":")[0] or name
            if name not in _LOCAL_HOSTS:
                return RequestError(NO_HOST, "the request names another host; ask for 127.0.0.1 or localhost")
        if self._token is None or scope["path"] in _OPEN_ROUTES:
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._token):
            return RequestError(UNAUTHORIZED, "expected the header Authorization: Bearer TOKEN")
        return None
