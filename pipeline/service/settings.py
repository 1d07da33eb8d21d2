"""What the service grants one request, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.scoring.backends import Backend

TOKEN_VARIABLE = "MALIGNANCY_SERVE_TOKEN"  # noqa: S105  # the name of an environment variable


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """Bounds that keep memory, disk and time finite whatever is sent.

    Attributes:
        upload_bytes: of one request's body.
        unpacked_bytes: of all members of one zip archive.
        files: of one request, and members of one archive.
        field_bytes: of all fields of one request that are no files.
        lesions: of one request.
        spool_bytes: of all requests' files together.
        uploads: requests that are being received or unpacked at the same time.
        waiting: cases that may wait for a worker.
        connections: open at the same time.
        head_seconds: that a request's head may take to arrive.
        silence_seconds: between two parts of a body.
        upload_seconds: that a whole body may take.
    """

    upload_bytes: int = 1 << 30
    unpacked_bytes: int = 2 << 30
    files: int = 5000
    field_bytes: int = 64 << 10
    lesions: int = 64
    spool_bytes: int = 8 << 30
    uploads: int = 16
    waiting: int = 64
    connections: int = 512
    head_seconds: float = 10.0
    silence_seconds: float = 10.0
    upload_seconds: float = 300.0


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How to serve.

    Attributes:
        host: address to listen at.
        port: 0 takes a free one.
        token: that every request must bear; None for none, which is for this machine alone.
        workers: processes; one per core by default.
        backend: how the networks are run.
        timeout_seconds: that one scan may take to be read.
        temporary: folder for uploads; the system's by default.
        certificate: PEM file; with it the server speaks TLS.
        key: PEM file of its private key; None where the certificate's file holds it.
        limits: of requests and connections.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    workers: int | None = None
    backend: Backend = "eager"
    timeout_seconds: float = 60.0
    temporary: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    limits: ServiceLimits = field(default_factory=ServiceLimits)
