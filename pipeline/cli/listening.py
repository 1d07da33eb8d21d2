"""The command ``listen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import BatchSize, Models, NetworkBackend, Timeout, Workers


def listen(
    model: Models,
    config: Annotated[Path, typer.Option(help="YAML file: address, senders, destinations, limits.")],
    find: Annotated[
        str | None, typer.Option("--find", metavar="DETECTOR", help="Detect lesions where no annotation marks one.")
    ] = None,
    workers: Workers = None,
    batch_size: BatchSize = 8,
    backend: NetworkBackend = "eager",
    timeout: Timeout = 300.0,
) -> None:
    """Receive series over DICOM, score them, and send structured reports back, until Ctrl-C or SIGTERM."""
    from pipeline.scoring.engines.worker_server import start_server

    start_server()
    from pipeline.jobs.listen import ListenOptions
    from pipeline.jobs.listen import listen as job

    options = ListenOptions(find=find, workers=workers, batch_size=batch_size, backend=backend, timeout_seconds=timeout)
    job(model, config, options)
