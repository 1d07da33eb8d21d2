"""TLS by configuration: 1.2 or newer, and the other side's certificate is checked where a CA is named."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.listening import TLS
from pipeline.errors import UsageError


def server_context(tls: TLS) -> ssl.SSLContext:
    """For a listener; with a CA, senders need a certificate that it signed.

    Raises:
        UsageError: when a file cannot be used.
    """
    with _named_faults():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        assert tls.certificate is not None
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TLS) -> ssl.SSLContext:
    """For a sender; the destination's certificate is checked with the CA, or with those of the system.

    Raises:
        UsageError: when a file cannot be used.
    """
    with _named_faults():
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    return context


@contextmanager
def _named_faults() -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"tls: certificate, key or ca cannot be used ({reason}); give PEM files") from None
