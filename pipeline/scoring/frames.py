"""Cases as a DataFrame or as paths, and their score rows as a DataFrame: what programs use, and the MLflow model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cases.case import Case, case_from_record
from pipeline.cases.inputs import read_inputs
from pipeline.errors import UsageError
from pipeline.scoring.engine import score_cases
from pipeline.scoring.model_directory import Model
from pipeline.scoring.rows import rows_table
from pipeline.scoring.scorer import Scorer


def score_frame(model: Model, frame: pd.DataFrame, *, root: Path) -> pd.DataFrame:
    """Score the cases of a DataFrame of manifest columns.

    Args:
        model: loaded.
        frame: ``image`` and whatever else the model needs, one row a case.
        root: folder that relative paths start from, and that no image may leave.

    Returns:
        Score rows, one a row of ``frame``, in order.

    Raises:
        UsageError: without a column ``image``.
    """
    if "image" not in frame.columns:
        raise UsageError(
            f"a table of cases needs a column 'image'; found {', '.join(map(str, frame.columns)) or 'none'}"
        )
    cases = [
        case_from_record({str(name): _text(value) for name, value in record.items()}, row=row, root=root)
        for row, record in enumerate(frame.to_dict("records"), start=1)
    ]
    return _score(model, cases, root=root)


def score_paths(model: Model, sources: Sequence[str | Path]) -> pd.DataFrame:
    """Score scans, folders or manifests, one after the other, and return their rows.

    Raises:
        UsageError: when there is no such path.
    """
    parts = []
    for source in sources:
        inputs = read_inputs(source)
        parts.append(_score(model, inputs.cases(), root=inputs.root))
    if not parts:
        raise UsageError("no path was given; name a scan, a folder or a manifest")
    return pd.concat(parts, ignore_index=True)


def _score(model: Model, cases: Iterable[Case], *, root: Path | None) -> pd.DataFrame:
    scorer = Scorer(model, root=root)
    rows = list(score_cases(scorer, cases))
    frame: pd.DataFrame = rows_table(rows, members=scorer.member_columns, findings=scorer.finding_columns).to_pandas()
    return frame


def _text(value: Any) -> str:
    """A cell as the manifest would hold it; missing is blank."""
    return "" if pd.isna(value) else str(value)
