"""The command ``listen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def listen(
    model: Annotated[str, typer.Argument(help="Model directory or MLflow model URI; several, with commas: ensemble.")],
    config: Annotated[Path, typer.Option(help="YAML file: address, senders, destinations, limits.")],
    find: Annotated[
        str | None, typer.Option("--find", metavar="DETECTOR", help="Detect lesions where no annotation marks one.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Scoring processes; one per core by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases that go through the network together.")] = 8,
    backend: Annotated[
        Literal["eager", "bf16", "onnx", "openvino"], typer.Option(help="How the network runs.")
    ] = "eager",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one scan may take to be read.")] = 300.0,
) -> None:
    """Receive series over DICOM, score them, and send structured reports back, until Ctrl-C or SIGTERM."""
    from pipeline.scoring.worker_server import start_server

    start_server()
    from pipeline.jobs.listen import ListenOptions
    from pipeline.jobs.listen import listen as job

    options = ListenOptions(find=find, workers=workers, batch_size=batch_size, backend=backend, timeout_seconds=timeout)
    job(model, config, options)
