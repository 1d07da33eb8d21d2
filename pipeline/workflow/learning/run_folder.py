"""The folder of a training run: made once, and found again by ``--resume``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.config.detection import DetectionConfig
from pipeline.config.experiment import Config
from pipeline.errors import UsageError
from pipeline.files import private_folder, read_json, write_json
from pipeline.redaction import map_texts, redact

_RECORD, SUMMARY = "run.json", "summary.txt"


@dataclass(frozen=True)
class RunRecord:
    """Record for resuming a training, kept as ``run.json`` in its folder.

    Attributes:
        run_id: MLflow's; None before the run is open.
        name: of the MLflow run.
        config: as it was resolved, as JSON, without passwords.
        manifest_sha256: of the table.
    """

    run_id: str | None
    name: str
    config: Mapping[str, Any]
    manifest_sha256: str

    def write(self, folder: Path) -> None:
        """Write it into a run's folder, which is created."""
        private_folder(folder)
        write_json(folder / _RECORD, asdict(self))

    def require_same(self, now: RunRecord, folder: Path) -> None:
        """Refuse to resume with another configuration or table.

        Raises:
            UsageError: naming the first difference.
        """
        records = [{**record.config, "the manifest's digest": record.manifest_sha256[:12]} for record in (self, now)]
        for name, was, is_now in _differences(records[0], records[1]):
            raise UsageError(f"--resume {folder}: {name} was {was!r}, and is {is_now!r}; restore it, or start again")


def read_record(folder: Path) -> RunRecord | None:
    """The record of a run's folder; None where there is none.

    Raises:
        UsageError: when it is damaged, or another program's.
    """
    try:
        content = read_json(folder / _RECORD)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    ours = isinstance(content, dict) and set(content) == {column.name for column in fields(RunRecord)}
    if not ours or not isinstance(content["config"], dict):
        raise UsageError(f"{folder / _RECORD}: is not what was written; restore it, or move {folder} away")
    record = RunRecord(**content)
    return replace(record, config=map_texts(record.config, redact))  # of an earlier release, it may have one


def find_run(run: str, config: Config | DetectionConfig, record: RunRecord) -> tuple[Path, RunRecord]:
    """The folder and the record of an unfinished run.

    Args:
        run: the folder, or the MLflow run id of one in ``config.output``.
        config: of the run that would go on.
        record: of the run that would go on; must be the same but for id and name.

    Raises:
        UsageError: when there is none, it is finished, or another one.
    """
    folders = [Path(run), *(path.parent for path in sorted(config.output.glob(f"*/{_RECORD}")))]
    for folder in folders:
        try:
            earlier = read_record(folder)
        except UsageError:
            if folder == Path(run):
                raise
            continue  # another program's
        if earlier is None or (folder != Path(run) and earlier.run_id != run):
            continue
        if (folder / SUMMARY).exists():
            raise UsageError(f"--resume {run}: {folder} is finished; its results are in {folder / SUMMARY}")
        earlier.require_same(record, folder)
        _set_aside(folder / "model")  # it is made again, from the weights
        return folder, earlier
    raise UsageError(
        f"--resume {run}: neither a run's folder (one with {_RECORD}) nor the id of a run in {config.output}; name one"
    )


def _set_aside(model: Path) -> None:
    if os.path.lexists(model):
        model.rename(model.with_name(f"{model.name}-before-{time.time_ns()}"))


def new_folder(config: Config | DetectionConfig, started: datetime) -> Path:
    """Create a folder with a unique name, also among runs that start in the same second."""
    config.output.mkdir(parents=True, exist_ok=True)
    name = f"{config.name}-{started:%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = config.output / (name + suffix)
        try:
            folder.mkdir(mode=0o700)  # ids of patients
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{config.output / name}: a thousand runs of this second; remove some")


def _differences(first: Any, second: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys((*first, *second)):
            yield from _differences(first.get(key), second.get(key), f"{name}.{key}" if name else key)
    elif first != second:
        yield name, first, second
