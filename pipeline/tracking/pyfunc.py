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

from pipeline.cases.case import case_from_record
from pipeline.scoring.engine import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.rows import rows_table
from pipeline.scoring.scorer import Scorer


class MalignancyModel(mlflow.pyfunc.PythonModel):
    """Scores the cases of a DataFrame."""

    def load_context(self, context: Any) -> None:
        """Load the model directory that MLflow hands over."""
        self._model = load_model(Path(context.artifacts["model_directory"]))
        self._root = Path((context.model_config or {}).get("root", ".")).resolve()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row for each row of the input, in order."""
        cases = [
            case_from_record({str(name): _text(value) for name, value in record.items()}, row=row, root=self._root)
            for row, record in enumerate(model_input.to_dict("records"), start=1)
        ]
        scorer = Scorer(self._model, root=self._root)
        rows = list(score_cases(scorer, cases))
        table = rows_table(rows, members=scorer.member_columns, findings=scorer.finding_columns)
        frame: pd.DataFrame = table.to_pandas()
        return frame


def _text(value: Any) -> str:
    """A cell as the manifest would hold it; missing is blank."""
    return "" if pd.isna(value) else str(value)


mlflow.models.set_model(MalignancyModel())
