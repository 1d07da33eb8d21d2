"""From cases as a DataFrame or as paths to a DataFrame of score rows, for programs and the MLflow model."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cases.case import BYTES_COLUMN, Case, case_from_record
from pipeline.cases.inputs import read_inputs
from pipeline.errors import CaseError, Code, UsageError
from pipeline.imaging.stored_names import stored_name, suffix_of
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.rows import ScoreRow, rows_table
from pipeline.scoring.scorer import Scorer


def score_frame(scorer: Scorer, frame: pd.DataFrame, *, root: Path) -> pd.DataFrame:
    """Score the cases of a DataFrame of manifest columns.

    Args:
        scorer: its own root is not used.
        frame: ``image`` and the model's other columns, one row a case. Where ``image_base64`` is not blank, it is
            the scan's file itself, and ``image`` at most its name.
        root: folder that relative paths start from, and that no image may leave.

    Returns:
        Score rows, one a row of ``frame``, in order.

    Raises:
        UsageError: without a column ``image`` or ``image_base64``.
    """
    with tempfile.TemporaryDirectory(prefix="malignancy-") as name:
        folder = Path(name).resolve()
        cases = cases_of_frame(frame, root=root, folder=folder)
        rows: dict[int, ScoreRow] = {}
        for place in (root, folder):
            chosen = [number for number, (_, its_place) in enumerate(cases) if its_place == place]
            scored = score_cases(scorer.under(place), [cases[number][0] for number in chosen])
            rows.update(zip(chosen, scored, strict=True))
    return _frame(scorer, [rows[number] for number in range(len(cases))])


def cases_of_frame(frame: pd.DataFrame, *, root: Path, folder: Path) -> list[tuple[Case, Path]]:
    """The cases of a DataFrame of manifest columns, each with the folder that its image may not leave, in order.

    Args:
        frame: with ``image`` or ``image_base64`` (`score_frame`).
        root: folder that relative paths start from.
        folder: another one, which is given the scans that came as bytes.

    Raises:
        UsageError: without a column ``image`` or ``image_base64``.
    """
    if not {"image", BYTES_COLUMN} & {*frame.columns}:
        names = ", ".join(map(str, frame.columns)) or "none"
        raise UsageError(f"a table of cases needs a column 'image' or '{BYTES_COLUMN}'; found {names}")
    cases = []
    for row, record in enumerate(frame.to_dict("records"), start=1):
        texts = {str(name): _text(value) for name, value in record.items()}
        if texts.get(BYTES_COLUMN):
            cases.append((_case_of_bytes(texts, row=row, root=folder), folder))
        else:
            cases.append((_case_of_path(texts, row=row, root=root), root))
    return cases


def _case_of_path(record: Mapping[str, str], *, row: int, root: Path) -> Case:
    return case_from_record({"image": "", **record}, row=row, root=root)


def _case_of_bytes(record: Mapping[str, str], *, row: int, root: Path) -> Case:
    """A case whose file is written under a number; its row shows the name that the record gives."""
    image = record.get("image", "")
    fault = None
    try:
        data = base64.b64decode(record[BYTES_COLUMN], validate=True)
    except ValueError:
        data = b""
        fault = CaseError(Code.E_FORMAT, f"row {row}", f"{BYTES_COLUMN} is not base64; encode the file's bytes")
    stored = (stored_name(image, row) if image else None) or f"{row:06d}{suffix_of(data)}"
    (root / stored).write_bytes(data)
    columns = {name: text for name, text in record.items() if name != BYTES_COLUMN}
    case_id = record.get("case_id") or image or f"row {row}"
    case = case_from_record({**columns, "case_id": case_id, "image": stored}, row=row, root=root)
    return replace(case, image=image or stored, fault=fault or case.fault)


def score_paths(scorer: Scorer, sources: Sequence[str | Path]) -> pd.DataFrame:
    """Score scans, folders or manifests, one after the other, and return their rows.

    Raises:
        UsageError: when there is no such path.
    """
    parts = []
    for source in sources:
        inputs = read_inputs(source)
        parts.append(_frame(scorer, [*score_cases(scorer.under(inputs.root), inputs.cases())]))
    if not parts:
        raise UsageError("no path was given; name a scan, a folder or a manifest")
    return pd.concat(parts, ignore_index=True)


def _frame(scorer: Scorer, rows: Sequence[ScoreRow]) -> pd.DataFrame:
    table = rows_table(rows, members=scorer.member_columns, findings=scorer.finding_columns)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _text(value: Any) -> str:
    """A cell as the manifest would hold it; missing is blank."""
    return "" if pd.isna(value) else str(value)
