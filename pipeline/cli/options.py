"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Overrides of the configuration.")
]

LesionSources = Annotated[
    list[Path] | None,
    typer.Option("--lesions", metavar="SOURCE", help="Take lesion centres from a file or folder of annotations."),
]
