"""The tables of a search: one row a scan and one a candidate, from parts with one row a scan.

    OUT/scans.parquet, .csv         one row a scan, always
    OUT/candidates.parquet, .csv    one row a candidate: a manifest that ``malignancy score`` takes
    OUT/scores.parquet, .csv        with a classifier, one row a candidate

In a part, a scan's candidates and their scores are lists in its own row, so that they are committed with it or not at
all: a search that was killed can neither lose a candidate of a scan nor repeat one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.cases.case import CENTER_COLUMNS
from pipeline.scoring.finding.scan_rows import DIAMETER, RAS, ScanRow, candidate_id
from pipeline.scoring.rows import ModelIdentity, ScoreTables, table_writer

_ABOUT = ("case_id", "patient_id", "image", "status", "code", "reason", "warnings")
_IDENTITY = ("model", "model_digest", "preprocessing_digest")
_CLASSIFIER = ("classifier", "classifier_digest")
_PROBABILITIES = ("probability", "probability_lower", "probability_upper")
_CANDIDATES, _SCORES, _EXTRA = "found", "scores", "extra"
_TEXT, _NUMBER = pa.string(), pa.float64()


@dataclass(frozen=True)
class ScanTables:
    """Scan rows as the sink keeps them, and the tables that a search ends with.

    Attributes:
        classes: of the detector.
        scores: tables of the classifier's rows; None without one.
        classifier: of the second stage; None without one.
        extra: names of the scans' other columns, which candidates keep.
    """

    classes: Sequence[str]
    scores: ScoreTables | None = None
    classifier: ModelIdentity | None = None
    extra: Sequence[str] = ()

    @property
    def columns(self) -> pa.Schema:
        """Of the parts."""
        fields = [(name, _TEXT) for name in _ABOUT]
        fields += [(name, _NUMBER) for name in _PROBABILITIES] + [(_CANDIDATES, pa.list_(self._candidate))]
        fields += [(_EXTRA, pa.list_(_TEXT))]
        if self.scores is not None:
            fields += [(_SCORES, pa.list_(pa.struct(list(self.scores.columns))))]
        fields += [(name, _TEXT) for name in (*_IDENTITY, "image_sha256", "scored_at")]
        return pa.schema([*fields, ("seconds", _NUMBER)])

    @property
    def _candidate(self) -> pa.StructType:
        names = (*CENTER_COLUMNS, DIAMETER, *(f"probability_{name}" for name in self.classes))
        return pa.struct([(name, _NUMBER) for name in names])

    def part(self, rows: Sequence[ScanRow]) -> pa.Table:
        """Rows in these columns."""
        names = [field.name for field in self._candidate]
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _ABOUT}
        columns |= {name: [getattr(row, name) for row in rows] for name in (*_PROBABILITIES, "seconds")}
        columns |= {name: [getattr(row, name) for row in rows] for name in ("image_sha256", "scored_at")}
        identities = [asdict(row.detector) for row in rows]
        columns |= {name: [identity[name] for identity in identities] for name in _IDENTITY}
        columns[_EXTRA] = [[row.extra.get(name, "") for name in self.extra] for row in rows]
        columns[_CANDIDATES] = [
            [
                dict(zip(names, (*candidate.center_mm, candidate.diameter_mm, *candidate.probabilities), strict=True))
                for candidate in row.candidates
            ]
            for row in rows
        ]
        if self.scores is not None:
            columns[_SCORES] = [self.scores.part(row.scores).to_pylist() for row in rows]
        return pa.table(columns, schema=self.columns)

    def write(self, parts: Iterable[pa.Table], folder: Path) -> None:
        """Write the tables of parts; only one part is held at a time."""
        scans, candidates = self.scan_columns, self.candidate_columns
        with ExitStack() as files:
            write_scans = files.enter_context(table_writer(folder, "scans", scans))
            write_candidates = files.enter_context(table_writer(folder, "candidates", candidates))
            if self.scores is not None:
                write_scores = files.enter_context(table_writer(folder, "scores", self.scores.columns))
            for part in parts:
                rows = part.select(self.columns.names).to_pylist()
                write_scans(pa.Table.from_pylist([self.scan_of(row) for row in rows], scans))
                candidate_rows = [candidate for row in rows for candidate in self.candidates_of(row)]
                write_candidates(pa.Table.from_pylist(candidate_rows, candidates))
                if self.scores is not None:
                    scores = [score for row in rows for score in row[_SCORES]]
                    write_scores(pa.Table.from_pylist(scores, self.scores.columns))

    @property
    def scan_columns(self) -> pa.Schema:
        """Of ``scans.parquet``."""
        names = ("scan_id", *_ABOUT[1:])
        fields = [(name, _TEXT) for name in names] + [("candidates", pa.int64())]
        fields += [(name, _NUMBER) for name in _PROBABILITIES]
        fields += [(name, _TEXT) for name in (*_IDENTITY, *(_CLASSIFIER if self.classifier else ()), "image_sha256")]
        return pa.schema([*fields, ("scored_at", _TEXT), ("seconds", _NUMBER)])

    @property
    def candidate_columns(self) -> pa.Schema:
        """Of ``candidates.parquet``: a manifest's."""
        fields = [(name, _TEXT) for name in ("case_id", "image", "patient_id", "scan_id")]
        fields += [(name, _NUMBER) for name in CENTER_COLUMNS] + [("coordinate_system", _TEXT)]
        fields += [(field.name, field.type) for field in self._candidate if field.name not in CENTER_COLUMNS]
        fields += [(name, _TEXT) for name in (*_IDENTITY, "image_sha256", "scored_at")]
        own = {name for name, _ in fields}
        return pa.schema([*fields, *((name, _TEXT) for name in self.extra if name not in own)])

    def scan_of(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row of ``scans.parquet`` for one row of a part, among other columns."""
        searched = row["status"] in ("scored", "flagged")
        count = len(row[_CANDIDATES]) if searched else None  # unknown for a scan that was not searched
        values = {**row, "scan_id": row["case_id"], "candidates": count}
        if self.classifier is not None:
            values |= {"classifier": self.classifier.model, "classifier_digest": self.classifier.model_digest}
        return values

    def candidates_of(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of ``candidates.parquet`` for one row of a part."""
        shared = {name: row[name] for name in ("image", "patient_id", *_IDENTITY, "image_sha256", "scored_at")}
        extra = dict(zip(self.extra, row[_EXTRA], strict=True))
        shared |= {"scan_id": row["case_id"], "coordinate_system": RAS}
        return [
            {**extra, **shared, **candidate, "case_id": candidate_id(row["case_id"], number)}
            for number, candidate in enumerate(row[_CANDIDATES], start=1)
        ]
