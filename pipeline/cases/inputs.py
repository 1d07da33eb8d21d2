"""What a user may ask to have scored: a manifest, a folder searched for scans, or one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.manifest import read_manifest
from pipeline.errors import UsageError
from pipeline.imaging.find import SkippedCount, find_scans

TABLE_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Inputs:
    """Cases to be scored or checked.

    Attributes:
        cases: one a row of the manifest, or one a scan that was found.
        root: folder that no image may leave; None for one scan named by the user.
        skipped: files of a searched folder that are plainly not scans, counted by suffix.
        repeated_rows: rows of a manifest that repeat an earlier one.
        digest: of the manifest's bytes; None without one.
    """

    cases: tuple[Case, ...]
    root: Path | None
    skipped: Mapping[str, int] = field(default_factory=dict)
    repeated_rows: int = 0
    digest: str | None = None


def read_inputs(source: Path) -> Inputs:
    """Turn a path into cases, without opening a scan's voxels.

    Raises:
        UsageError: when there is no such path, or a folder without one scan.
        TableError: when a manifest cannot be read.
    """
    if source.suffix.lower() in TABLE_SUFFIXES:
        manifest = read_manifest(source)
        return Inputs(manifest.cases, manifest.root, repeated_rows=manifest.repeated_rows, digest=manifest.digest)
    if not source.exists():
        raise UsageError(f"{source}: no such manifest, folder or scan; check the path")
    if not source.is_dir():
        return Inputs((Case(case_id=source.name, image=str(source), path=source.absolute()),), None)
    skipped = SkippedCount()
    cases = tuple(
        Case(case_id=found.case_id, image=found.case_id, path=found.path, files=found.files, fault=found.error)
        for found in find_scans(source, skipped=skipped)
    )
    if not cases:
        raise UsageError(
            f"{source}: holds no scan ({skipped.total} other files); expected NIfTI, DICOM, PNG, JPEG or TIFF files"
        )
    return Inputs(cases, source.resolve(), skipped=skipped.by_suffix)
