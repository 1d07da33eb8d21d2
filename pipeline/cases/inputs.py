"""Inputs of scoring and checking: a manifest, a folder searched for scans, or one scan; also by URL."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.cases.case import Case, split_part
from pipeline.cases.manifest import read_manifest
from pipeline.cases.remote import find_remote_cases, is_url, local_path, read_remote_manifest
from pipeline.cases.source_files import source_files
from pipeline.cases.table_facts import TableFacts
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.errors import UsageError
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.redaction import redact

_CLOCKS_DIFFER_SECONDS = 3600.0  # a file server's clock may be ahead of this machine's by less


@dataclass(frozen=True)
class Inputs:
    """Cases to be scored or checked, listed as they are asked for.

    Attributes:
        listing: starts a new listing; its argument counts the skipped files.
        source: the input as an absolute path or URL.
        root: folder that no image may leave; None for one scan named by the user, and for URLs.
        total: how many cases there are; None for a folder, which is not searched twice to be counted.
        repeated_rows: rows of a manifest that repeat an earlier one.
        digest: of the manifest's bytes; None without one.
        columns: of the manifest, those that say something else than what every manifest does.
        facts: what a manifest says of its labels and scans.
        skipped: files of a searched folder that are plainly not scans, by suffix; complete after a listing.
    """

    listing: Callable[[SkippedCount], Iterable[Case]]
    source: str
    root: Path | None = None
    total: int | None = None
    repeated_rows: int = 0
    digest: str | None = None
    columns: tuple[str, ...] = ()
    facts: TableFacts = field(default_factory=TableFacts)
    skipped: Counter[str] = field(default_factory=Counter)

    def cases(self) -> Iterator[Case]:
        """List the cases from the front, in the same order each time while nothing changes on disk.

        Raises:
            UsageError: at the end, when there was none.
        """
        self.skipped.clear()
        empty = True
        for case in self.listing(SkippedCount(self.skipped)):
            empty = False
            yield case
        if empty:
            raise UsageError(
                f"{self.source}: holds no scan ({self.skipped.total()} other files); "
                "expected scans, as NIfTI, DICOM, MetaImage, NRRD, PNG, JPEG or TIFF files"
            )


def read_inputs(source: str | Path) -> Inputs:
    """Turn a path or a URL into cases, without opening a scan's voxels.

    Raises:
        UsageError: when there is no such path.
        TableError: when a manifest cannot be read.
    """
    if is_url(source):
        path_of_url = local_path(str(source))
        if path_of_url is None:
            return _read_remote_inputs(str(source))
        source = path_of_url
    name, part = split_part(str(source), os.path.lexists)
    path = Path(name)
    if path.suffix.lower() in TABLE_SUFFIXES:
        manifest = read_manifest(path)
        return Inputs(
            lambda _: manifest.cases,
            str(path.absolute()),
            manifest.root,
            total=len(manifest.cases),
            repeated_rows=manifest.repeated_rows,
            digest=manifest.digest,
            columns=manifest.columns,
            facts=manifest.facts,
        )
    if not path.exists():
        raise UsageError(f"{path}: no such manifest, folder or scan; check the path")
    if path.is_dir() and part is None:
        return Inputs(lambda skipped: _cases_in_folder(path, skipped), str(path.absolute()), path.resolve())
    absolute = Path(source).absolute()
    case = Case(case_id=absolute.name, image=str(source), path=path.absolute(), part=part)
    return Inputs(lambda _: (case,), str(absolute), total=1)


def one_scan_a_case(inputs: Inputs) -> Inputs:
    """Name a single scan relative to its folder, like those of a searched folder, so that its candidates can be too.

    Other inputs are returned unchanged.
    """
    if inputs.root is not None or inputs.digest is not None or inputs.total != 1:
        return inputs
    case = next(inputs.cases())
    if case.url is not None:
        return inputs
    part = "" if case.part is None else f"#{case.part}"
    named = replace(case, image=f"{case.path.name}{part}")

    def listing(_: object) -> Iterator[Case]:
        yield named

    return replace(inputs, listing=listing, root=None)


def _read_remote_inputs(url: str) -> Inputs:
    """Turn a URL into cases: a manifest (``.csv``, ``.parquet``), one scan, or a prefix that is searched."""
    source = redact(url)
    manifest = read_remote_manifest(url)
    if manifest is not None:
        return Inputs(
            lambda _: manifest.cases,
            source,
            total=len(manifest.cases),
            repeated_rows=manifest.repeated_rows,
            digest=manifest.digest,
            columns=manifest.columns,
        )
    cases = find_remote_cases(url)
    return Inputs(lambda _: (cases,), source, total=1) if isinstance(cases, Case) else Inputs(cases, source)


def _cases_in_folder(folder: Path, skipped: SkippedCount) -> Iterator[Case]:
    from pipeline.imaging.discovery.find import find_scans  # pydicom, which a table of other files does not need

    for scan in find_scans(folder, skipped=skipped):
        yield Case(case_id=scan.name, image=scan.name, path=scan.path, files=scan.files, fault=scan.error)


class Arrived:
    """Leaves out cases whose files are still arriving.

    Args:
        min_age_seconds: how long a case's newest file must have been still.

    Attributes:
        waiting: how many cases were left for a later run.
    """

    def __init__(self, min_age_seconds: float) -> None:
        self._min_age, self.waiting = min_age_seconds, 0

    def __call__(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases that have arrived."""
        for case in cases:
            if self._min_age > 0 and _still_seconds(case) < self._min_age:
                self.waiting += 1
            else:
                yield case


def _still_seconds(case: Case) -> float:
    """Seconds since the last of a case's files changed; infinite when none can be read, as its reader reports."""
    now = time.time()
    ages = [math.inf]
    for path in source_files(case) or [case.path]:
        try:
            status = path.stat()
        except OSError:
            continue
        ages.append(_age(status.st_mtime, status.st_ctime, now))
    return min(ages)


def _age(modified: float, arrived: float, now: float) -> float:
    """Seconds since a file was changed.

    A modification time in the future comes from the sender's clock, and the file would wait until then; so the time at
    which it arrived here is used instead. When that is far in the future too, the file does not wait.
    """
    age = now - (modified if modified <= now else arrived)
    return age if age > -_CLOCKS_DIFFER_SECONDS else math.inf
