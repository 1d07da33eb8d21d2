"""Logging, registering and fetching models."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.cases.case import BYTES_COLUMN, CENTER_COLUMNS
from pipeline.config.experiment import Tracking
from pipeline.errors import ModelError, UsageError
from pipeline.tracking.faults import store_faults, store_reason
from pipeline.tracking.runs import TrackedRun
from pipeline.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CHAMPION, CHALLENGER, ANCHOR = "champion", "challenger", "anchor"
_ABOUT = "Calibrated probability of malignancy. Research use; not a medical device."
_RUNTIME = (
    "isal",
    "jinja2",
    "matplotlib",
    "mlflow",
    "monai",
    "nibabel",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyyaml",
    "rich",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
)


def no_champion(name: str) -> str:
    """Advice for a registered model without a champion."""
    return (
        f"{name} has no champion to compare with: its alias or its version was removed. In `malignancy ui`, under "
        f"Models, {name}, give the alias `{CHAMPION}` to the version that is in use, then run `malignancy promote`"
    )


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version of the registry.

    Attributes:
        name: of the registered model.
        version: its number, as text.
        run_id: of the run that made it.
        alias: ``champion`` or ``challenger`` of a version that was just registered; blank of one that was looked up.
        has_champion: whether the name had a champion when it was registered.
    """

    name: str
    version: str
    run_id: str
    alias: str = ""
    has_champion: bool = True

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``, as ``malignancy score`` takes it."""
        return f"models:/{self.name}/{self.version}"

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    def describe(self) -> str:
        """Line on the alias that a version got when it was registered, and why."""
        why = "challenger; `malignancy promote` lets the gate compare it with the champion"
        if self.alias == CHAMPION:
            why = "champion, because no version of this name was in the store before"
        elif not self.has_champion:
            why = f"challenger; {no_champion(self.name)}"
        return f"registered: {self}, {why}"


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that a model needs."""
    return {name: metadata.version(name) for name in _RUNTIME}


def log_model(run: TrackedRun, folder: Path, *, input_example: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    """Log a model directory as an MLflow model of a run; no pickle is written.

    Args:
        run: that made it.
        folder: the model directory.
        input_example: one row of manifest columns.
        columns: of a score row, or of a detector's answer.

    Returns:
        The model's URI, ``runs:/<id>/model``.
    """
    import mlflow
    import pandas as pd

    with (
        mlflow.start_run(run_id=run.run_id),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):  # MLflow's hints about code_paths and whole numbers
        warnings.simplefilter("ignore")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"model_directory": str(folder)},
            code_paths=[str(Path(pipeline.__file__).parent)],
            signature=_signature(input_example, columns),
            input_example=pd.DataFrame([input_example]),
            pip_requirements=[f"{name}=={version.split('+')[0]}" for name, version in package_versions().items()],
            model_config={"root": "."},
        )
    return f"runs:/{run.run_id}/model"


def _signature(input_example: Mapping[str, Any], columns: tuple[str, ...]) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    numbers = {
        "threshold",
        "logit",
        "seconds",
        "diameter_mm",
        *CENTER_COLUMNS,
        *(name for name in columns if name.startswith("probability")),
    }
    optional = {"case_id", "patient_id", "image", BYTES_COLUMN}  # of the last two one is needed
    # A covariate may come as whole numbers or as text, as in a table; the scorer checks it.
    types = dict.fromkeys(CENTER_COLUMNS, "double")
    types |= {
        name: AnyType() for name, value in input_example.items() if isinstance(value, float) and name not in types
    }
    inputs = [ColSpec(types.get(name, "string"), name, required=name not in optional) for name in input_example]
    inputs.append(ColSpec("string", BYTES_COLUMN, required=False))
    outputs = [ColSpec("double" if name in numbers else "string", name, required=False) for name in columns]
    return ModelSignature(Schema(inputs), Schema(outputs))


def register(
    run: TrackedRun, *, name: str, description: str, tags: Mapping[str, str], about: str = _ABOUT
) -> RegisteredVersion:
    """Register a logged model; it becomes ``challenger``, the first version of a name ``champion`` and ``anchor``.

    A name that had versions before never gets its champion this way: the gate alone decides about that.

    Args:
        run: that logged it.
        name: of the registered model.
        description: of this version.
        tags: of this version.
        about: what all versions of the name are; kept when the name is new.
    """
    from mlflow.exceptions import MlflowException

    client = run.store.client
    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(name, description=about)
    logged = client.get_run(run.run_id).outputs.model_outputs[-1]
    version = client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run.run_id,
        tags=dict(tags),
        description=description,
        model_id=logged.model_id,
    )
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    number = str(version.version)
    if CHAMPION in client.get_registered_model(name).aliases:
        return RegisteredVersion(name, number, run.run_id, CHALLENGER)
    if number != "1":  # numbers are not given twice: others of this name were there, and may be deleted
        return RegisteredVersion(name, number, run.run_id, CHALLENGER, has_champion=False)
    client.set_registered_model_alias(name, CHAMPION, version.version)
    client.set_registered_model_alias(name, ANCHOR, version.version)
    return RegisteredVersion(name, number, run.run_id, CHAMPION)


def model_folder(model: str, config: Tracking) -> Path:
    """The model directory that a MODEL argument names: a folder, or any MLflow model URI.

    Raises:
        ModelError: when there is no such model.
    """
    if ":/" not in model:
        path = Path(model)
        nested = path / "artifacts" / "model_directory"
        return nested if nested.is_dir() else path
    if re.fullmatch(r"models:/[^/@]+", model):
        raise ModelError(f"{model}: names no version; give {model}@{CHAMPION}, or {model}/1")
    store = open_store(config)
    import mlflow.artifacts

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model))
    except store_faults() as error:
        raise ModelError(
            f"{model}: no such model in {store.shown} ({store_reason(error)}); `malignancy ui` lists them"
        ) from None
    return next((path.parent for path in folder.rglob("model.json")), folder)


def model_folders(names: str) -> tuple[Path, ...]:
    """The model directories that a MODEL argument names: one, or several with commas between.

    Raises:
        UsageError: for an empty name.
        ModelError: when there is no such model.
    """
    several = [name.strip() for name in names.split(",")]
    if not all(several):
        raise UsageError(f"MODEL {names!r} has an empty name; give one model, or several with a comma between")
    return tuple(model_folder(name, Tracking()).absolute() for name in several)
