"""Reading ``model.json``, of a classifier or a detector; no torch needed."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pipeline.config.detection import DETECTION
from pipeline.config.inputs import Section
from pipeline.errors import ModelError
from pipeline.files import MOST_JSON_BYTES, parse_json, read_bytes

SCHEMA_VERSION = 1
JSON_NAME = "model.json"
DescriptionT = TypeVar("DescriptionT", bound=Section)


def read_description_file(folder: Path, schema: type[DescriptionT], *, task: str | None) -> DescriptionT:
    """Read and check a ``model.json``.

    Args:
        folder: the model directory.
        schema: what it must be.
        task: of the model: ``detection``, or None for a classifier.

    Raises:
        ModelError: when it is missing, damaged, of another schema or of another task.
    """
    path = folder / JSON_NAME
    try:
        text = read_bytes(path, most=MOST_JSON_BYTES)
        values = parse_json(text)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "use the release that wrote it"
            )
        _require_task(path, values.get("task"), task)
        return schema.model_validate_json(text)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder}: holds no {JSON_NAME}; give a model directory or an MLflow model URI") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); copy the whole model directory") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        says = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{path}: {f'{key}: ' if key else ''}{says}; the file is damaged") from None
    except AttributeError:
        raise ModelError(f"{path}: is not a JSON object; the file is damaged") from None
    except ValueError as error:
        raise ModelError(f"{path}: is not a JSON object ({error}); the file is damaged") from None


def is_detector(folder: Path) -> bool:
    """Whether a model directory holds a detector; other damage is reported when it is loaded."""
    try:
        values = parse_json(read_bytes(folder / JSON_NAME, most=MOST_JSON_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("task") == DETECTION


def _require_task(path: Path, task: object, expected: str | None) -> None:
    if task == expected:
        return
    if task == DETECTION:
        raise ModelError(f"{path}: is a detector of lesions in whole scans, expected a classifier; use malignancy find")
    if task is None:
        raise ModelError(f"{path}: is a classifier, expected a detector; train one with task: detection")
    raise ModelError(f"{path}: task {task!r}, which this program does not know; use the release that wrote it")
