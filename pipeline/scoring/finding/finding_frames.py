"""From a DataFrame of whole scans to a DataFrame of their candidates, for the MLflow model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.scoring.finding.detector_directory import LoadedDetector
from pipeline.scoring.finding.finder import Finder
from pipeline.scoring.finding.scan_tables import ScanTables
from pipeline.scoring.finding.scan_worker import ScanWorker
from pipeline.scoring.frames import cases_of_frame

_OF_SCAN = ("scan_id", "status", "code", "reason", "warnings")
_REST = ("image_sha256", "scored_at")


def finding_columns(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of the frame that `find_frame` returns, for a detector of these classes."""
    names = ScanTables(classes).candidate_columns.names
    return (*_OF_SCAN, *(name for name in names if name not in (*_OF_SCAN, *_REST)), *_REST)


def find_frame(detector: LoadedDetector, frame: pd.DataFrame, *, root: Path) -> pd.DataFrame:
    """Search the scans of a DataFrame of manifest columns.

    Args:
        detector: loaded.
        frame: ``image`` or ``image_base64``, one row a scan (`pipeline.scoring.frames.score_frame`).
        root: folder that relative paths start from, and that no image may leave.

    Returns:
        One row a candidate; a scan without one has one row too, whose ``status`` and ``code`` say whether it was
        searched, and whose ``case_id`` and centre are blank. Scans in the order of ``frame``.

    Raises:
        UsageError: without a column ``image`` or ``image_base64``.
    """
    tables = ScanTables(detector.classes)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="malignancy-") as folder:
        for case, place in cases_of_frame(frame, root=root, folder=Path(folder).resolve()):
            worker = ScanWorker(Finder(detector, root=place), detector.description.identity)
            rows += _rows(tables, tables.part(worker.score([worker.prepare(case)])))
    names = finding_columns(detector.classes)
    return pd.DataFrame(rows, columns=list(names))


def _rows(tables: ScanTables, part: pa.Table) -> list[dict[str, Any]]:
    """The candidates of one scan with the columns of its row; without candidates, one row of these alone."""
    (scan,) = part.to_pylist()
    of_scan = {"scan_id": scan["case_id"], **{name: scan[name] for name in _OF_SCAN[1:]}}
    candidates = tables.candidates_of(scan)
    shared = ("image", "patient_id", "model", "model_digest", "preprocessing_digest", *_REST)
    return [{**of_scan, **candidate} for candidate in candidates] or [
        {**of_scan, **{name: scan[name] for name in shared}}
    ]
