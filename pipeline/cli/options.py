"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Overrides of the configuration.")
]

LesionSources = Annotated[
    list[Path] | None,
    typer.Option("--lesions", metavar="SOURCE", help="Take lesion centres from a file or folder of annotations."),
]

Models = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model directory or MLflow model URI; several, with commas: ensemble.")
]
Scans = Annotated[
    str, typer.Argument(metavar="INPUT", help="Manifest, folder searched for scans, one scan, or a URL of these.")
]
Out = Annotated[Path, typer.Option(help="Output folder; an earlier run into it is continued.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="ray: RAY_ADDRESS, or a local cluster.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes or actors; one per core by default.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Cases that go through the network together.")]
NetworkBackend = Annotated[Literal["eager", "bf16", "onnx", "openvino"], typer.Option(help="How the network runs.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds that one scan may take to be read.")]
Restart = Annotated[bool, typer.Option("--restart", help="Set aside the rows that --out holds.")]
RescoreChanged = Annotated[
    bool, typer.Option("--rescore-changed", help="Take inputs again that changed since their rows were written.")
]
MaxFailureRate = Annotated[
    float, typer.Option(min=0, max=1, help="Stop, exit 3, when a larger share of 50 inputs or more has no result.")
]
AcceptRejects = Annotated[float, typer.Option(min=0, max=1, help="Exit 0 up to this share of inputs without a result.")]
MinAge = Annotated[float, typer.Option(min=0, help="Leave files younger than these seconds for later.")]
Track = Annotated[bool, typer.Option(help="Log the run to MLflow.")]
