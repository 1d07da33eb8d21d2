"""The MLflow flavour, as models-from-code: MLflow stores this file and runs it to load the model.

Input: a DataFrame of manifest columns (``image`` and, for lesion models, the centre). Output: one score
row each, from the same scorer as the command. Images are read below ``root`` alone, which is the current
folder unless ``mlflow.pyfunc.load_model(uri, model_config={"root": ...})`` names another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from pipeline.scoring.frames import score_frame
from pipeline.scoring.model_directory import load_model


class MalignancyModel(mlflow.pyfunc.PythonModel):
    """Scores the cases of a DataFrame."""

    def load_context(self, context: Any) -> None:
        """Load the model directory that MLflow hands over."""
        self._model = load_model(Path(context.artifacts["model_directory"]))
        self._root = Path((context.model_config or {}).get("root", ".")).resolve()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row for each row of the input, in order."""
        return score_frame(self._model, model_input, root=self._root)


mlflow.models.set_model(MalignancyModel())
