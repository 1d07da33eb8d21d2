"""The MLflow flavour, as models-from-code: MLflow stores this file and runs it to load the model.

Input: a DataFrame of manifest columns (``image`` and, for lesion models, the centre). Where a row's ``image_base64`` is
not blank, it is the scan's file itself, in base64. Output: one score row each, from the same scorer as the command, or
of a detector its candidates (`pipeline.scoring.finding.finding_frames`); missing values are None, so that
``mlflow models serve`` answers strict JSON.

Other images are read below ``root`` alone: the folder that
``mlflow.pyfunc.load_model(uri, model_config={"root": ...})`` names, else that of the environment variable
``MALIGNANCY_MODEL_ROOT``, for ``mlflow models serve``, else the current folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from pipeline.machine import garbage_collection_paused

with garbage_collection_paused():  # torch and MONAI are imported here
    from pipeline.scoring.description_file import is_detector
    from pipeline.scoring.finding.detector_directory import LoadedDetector, load_detector
    from pipeline.scoring.finding.finding_frames import find_frame
    from pipeline.scoring.frames import score_frame
    from pipeline.scoring.model_directory import load_model
    from pipeline.scoring.scorer import Scorer

_ROOT_VARIABLE, _HERE = "MALIGNANCY_MODEL_ROOT", "."


class MalignancyModel(mlflow.pyfunc.PythonModel):
    """Scores the cases of a DataFrame, or finds the lesions of its scans where the model is a detector."""

    def load_context(self, context: Any) -> None:
        """Load the model directory that MLflow hands over."""
        folder = Path(context.artifacts["model_directory"])
        self._model: Scorer | LoadedDetector = (
            load_detector(folder) if is_detector(folder) else Scorer(load_model(folder))
        )
        root = (context.model_config or {}).get("root", _HERE)
        if root == _HERE:  # as logged
            root = os.environ.get(_ROOT_VARIABLE) or _HERE
        self._root = Path(root).resolve()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row for each row of the input, in order; of a detector, one or more."""
        if isinstance(self._model, Scorer):
            rows = score_frame(self._model, model_input, root=self._root)
        else:
            rows = find_frame(self._model, model_input, root=self._root)
        return pd.DataFrame({name: _nulls(column) for name, column in rows.items()})


def _nulls(column: pd.Series) -> pd.Series:
    """A column with None for missing values: NaN is no JSON, and a column of numbers cannot hold None."""
    return column.astype(object).where(column.notna(), None) if column.hasnans else column


mlflow.models.set_model(MalignancyModel())
