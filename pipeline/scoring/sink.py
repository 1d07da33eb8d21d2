"""Crash-safe storage of rows: parts that never change, a commit record for each, and tables at the end.

    OUT/parts/run.json          what the rows were scored with; a later run must be the same to go on
    OUT/parts/000001.parquet    rows, written whole; counts only when ...
    OUT/parts/000001.json       ... its commit record stands beside it, with the part's digest
    OUT/scores.parquet, .csv    all rows, in one piece, when a run has come to its end (of a search, see
                                `pipeline.scoring.finding.scan_tables`)

A part is written under a temporary name, synchronised to disk and renamed, then its record likewise. Whenever the
process is killed, a row is therefore either committed or absent. A part without its record is removed, and no other
file in the folder is (`pipeline.scoring.output_folder`). A case that was scored again has a row in a later part, and
its last row counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Code, ModelError, UsageError
from pipeline.files import atomic_write, open_file, private_folder, read_json, sha256_file, sync_folder, write_json
from pipeline.scoring.output_folder import PARTS, RUN, part_files, record_files, remove_temporaries, require_own
from pipeline.scoring.row_tables import Header, RowTables, SinkRowT
from pipeline.scoring.rows import ModelIdentity, now

_PART_ROWS, _PART_SECONDS = 2000, 5.0  # of one part; a kill loses at most the rows since the last part
_SIGNATURE, _MEASURE = "input_signature", "measure_"
_OF_FINISHED = ["case_id", "image", "patient_id", _SIGNATURE, "status", "code"]


@dataclass(frozen=True)
class RunHeader:
    """Common properties of all score rows of an output folder.

    Attributes:
        identity: what scored them, the backend included.
        members: of the ensemble; 0 for a single model.
        source: the input as it was named.
        threshold: from which rows are positive; no digest covers it, because it changes no probability.
    """

    identity: ModelIdentity
    members: int
    source: str
    threshold: float


@dataclass(frozen=True)
class Finished:
    """A committed case: the signature of its input, and whether its row is kept.

    Attributes:
        image: as the table named it.
        patient_id: as the table named it.
        signature: of the input (see `pipeline.cases.signature`).
        kept: False for a row that failed through no fault of the case, or ran out of time; the next run tries it again.
        scored: whether it has a probability.
    """

    image: str
    patient_id: str | None
    signature: str
    kept: bool
    scored: bool


@dataclass(frozen=True)
class Counts:
    """Rows of the whole output.

    Attributes:
        statuses: rows by status.
        codes: rows by code; rows without one are not in it.
    """

    statuses: Mapping[str, int]
    codes: Mapping[str, int]

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.statuses.values())


class Sink(Generic[SinkRowT]):
    """Appends rows to an output folder whose lock is held.

    Args:
        folder: exists; its lock is held by this process.
        header: of this run.
        tables: how the rows become tables.
        restart: set aside what the folder holds, instead of going on with it.

    Attributes:
        folder: the output folder.
        finished: committed cases by case_id, as they were when it was opened.

    Raises:
        UsageError: when the folder holds rows of another model or input.
        ModelError: when a committed part is damaged.
    """

    def __init__(self, folder: Path, header: Header, tables: RowTables[SinkRowT], *, restart: bool = False) -> None:
        require_own(folder)
        pa.array([])  # the first call imports pandas: now, while workers start, not when rows wait to be written
        self.folder, self._parts, self._header, self._row_tables = folder, folder / PARTS, header, tables
        if restart and (self._parts / RUN).exists():
            self._parts.rename(folder / f"{PARTS}-before-{now().replace(':', '')}-{time.monotonic_ns()}")
        private_folder(self._parts)
        self._check_header()
        self._committed = self._recover()
        taken = [int(path.stem) for path in (*part_files(self._parts), *record_files(self._parts))]
        self._next = max(taken, default=0) + 1
        self.finished = self._read_finished()
        # Whether some case stands in two parts; without one, no part needs to be looked at twice.
        self._repeats = sum(pq.read_metadata(part).num_rows for part in self._committed) > len(self.finished)
        self._left_out: frozenset[str] = frozenset()
        self._waiting: list[SinkRowT] = []
        self._since = time.monotonic()

    def _check_header(self) -> None:
        path, mine = self._parts / RUN, asdict(self._header)
        if not path.exists():
            write_json(path, mine)
            return
        before = _read_record(path)
        if set(before) != set(mine):
            raise UsageError(f"{path}: is not a record of scoring; choose another --out, or move {self._parts} away")
        if before != mine:
            name = next(name for name in mine if before.get(name) != mine[name])
            old, new = (_words(value.get(name)) for value in (before, mine))
            raise UsageError(
                f"{self.folder}: holds rows of another {'model' if name == 'identity' else name} ({old}, now {new}); "
                "choose another --out, or --restart, which sets those rows aside"
            )

    def _recover(self) -> list[Path]:
        """Committed parts in order; unfinished files of a killed run are removed."""
        remove_temporaries(self.folder)
        columns = _part_columns(self._row_tables.columns)
        committed = []
        for record in record_files(self._parts):
            part, digest = record.with_suffix(".parquet"), _read_record(record).get("sha256")
            if not part.is_file() or sha256_file(part) != digest or not _is_part(part, columns):
                raise _damaged(part)
            committed.append(part)
        for part in set(part_files(self._parts)).difference(committed):
            if _is_part(part, columns):  # a file that only has the name of a part is left alone
                part.unlink()
        return committed

    def _read_finished(self) -> dict[str, Finished]:
        finished: dict[str, Finished] = {}
        for part in self._committed:
            columns = (column.to_pylist() for column in _read_part(part, _OF_FINISHED).columns)
            for case_id, image, patient_id, signature, status, code in zip(*columns, strict=True):
                kept, scored = status != "failed" and code != Code.E_TIMEOUT, status in ("scored", "flagged")
                finished[case_id] = Finished(image, patient_id, signature, kept=kept, scored=scored)
        return finished

    def append(self, row: SinkRowT) -> None:
        """Take a row; it is committed with the next part, a few seconds later at most."""
        self._waiting.append(row)
        self._repeats = self._repeats or row.case_id in self.finished
        if len(self._waiting) >= _PART_ROWS or time.monotonic() - self._since > _PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit the waiting rows.

        Raises:
            OSError: when the disk is full; rows committed before stay.
        """
        self._since = time.monotonic()
        if not self._waiting:
            return
        part = self._parts / f"{self._next:06d}.parquet"
        with atomic_write(part) as temporary:
            pq.write_table(self._table(self._waiting), temporary)
            digest = sha256_file(temporary)
        write_json(part.with_suffix(".json"), {"rows": len(self._waiting), "sha256": digest, "committed_at": now()})
        self._committed.append(part)
        self._next += 1
        self._waiting = []

    def _table(self, rows: Sequence[SinkRowT]) -> pa.Table:
        table = self._row_tables.part(rows)
        table = table.append_column(_SIGNATURE, pa.array([row.signature for row in rows], pa.string()))
        for name in sorted({name for row in rows for name in row.measures}):
            values = pa.array([row.measures.get(name) for row in rows], pa.float64())
            table = table.append_column(_MEASURE + name, values)
        return table

    def forget_empty(self) -> None:
        """End a run that scored nothing: where no row is committed, another model may use the folder."""
        if not self._committed and not self._waiting:
            (self._parts / RUN).unlink(missing_ok=True)

    def leave_out(self, case_ids: Iterable[str]) -> None:
        """Keep these cases' rows in the parts, but out of the tables."""
        self._left_out = frozenset(case_ids)

    def tables(self) -> Iterator[pa.Table]:
        """Committed rows part by part, each case once, with all columns of the parts."""
        last = self._last_places() if self._repeats or self._left_out else None
        for number, part in enumerate(self._committed):
            table = _read_part(part)
            if last is not None:
                ids = table.column("case_id").to_pylist()
                table = table.filter(pa.array([last.get(case_id) == number for case_id in ids], pa.bool_()))
            yield table

    def _last_places(self) -> dict[str, int]:
        """The part in which each case's last row stands, without cases that are left out."""
        places: dict[str, int] = {}
        for number, part in enumerate(self._committed):
            places |= dict.fromkeys(_read_part(part, ["case_id"]).column(0).to_pylist(), number)
        return {case_id: number for case_id, number in places.items() if case_id not in self._left_out}

    def finish(self) -> Counts:
        """Commit the waiting rows and write the tables; returns the counts of rows."""
        self.commit()
        statuses: Counter[str] = Counter()
        codes: Counter[str] = Counter()

        def counted() -> Iterator[pa.Table]:
            for table in self.tables():
                statuses.update(table.column("status").to_pylist())
                codes.update(code for code in table.column("code").to_pylist() if code)
                yield table

        self._row_tables.write(counted(), self.folder)
        sync_folder(self.folder)
        return Counts(dict(statuses), dict(sorted(codes.items())))


def measures_of(table: pa.Table) -> dict[str, list[float | None]]:
    """The envelope's measures in one of `Sink.tables`, by name."""
    names = [name for name in table.column_names if name.startswith(_MEASURE)]
    return {name.removeprefix(_MEASURE): table.column(name).to_pylist() for name in names}


def _part_columns(contract: pa.Schema) -> pa.Schema:
    return contract.append(pa.field(_SIGNATURE, pa.string()))


def _is_part(path: Path, columns: pa.Schema) -> bool:
    """Whether a file holds rows that this program wrote, by its columns."""
    try:
        with open_file(path) as handle:
            stored = pq.read_schema(handle)
    except (OSError, pa.ArrowException):
        return False
    return all(name in stored.names and stored.field(name).type == columns.field(name).type for name in columns.names)


def _read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except pa.ArrowException:
        raise _damaged(path) from None


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path}: is not what was committed; restore it, or score again with --restart")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        header = read_json(path)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise _damaged(path)
    return header


def _words(value: Any) -> str:
    return value["model"] if isinstance(value, dict) and "model" in value else str(value)
