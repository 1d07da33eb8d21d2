"""Every format that is read is an input of a search, once; files that belong to one are neither inputs nor skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_writing import write_series
from volume_files import LIMITS, write_mgh, write_mha, write_mhd, write_nhdr, write_npy, write_nrrd

from pipeline.imaging.discovery.find import find_scans
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.imaging.kinds import SUFFIXES
from pipeline.imaging.read import open_scan


def search(folder: Path) -> tuple[list[str], SkippedCount]:
    skipped = SkippedCount()
    return [row.name for row in find_scans(folder, skipped=skipped)], skipped


@pytest.mark.parametrize("slices", [False, True], ids=["alone", "beside slices"])
def test_pairs_and_sidecars_are_one_row_each(tmp_path: Path, slices: bool) -> None:
    """Beside slices, any other file is a row with an error; the voxels of a pair are none."""
    if slices:
        write_series(tmp_path)
    write_mha(tmp_path / "a.mha")
    write_mhd(tmp_path / "b.mhd", name="b.raw")
    write_mhd(tmp_path / "c.mhd", name="voxels.img")
    write_nrrd(tmp_path / "d.nrrd")
    write_nhdr(tmp_path / "e.nhdr", name="e.raw.gz")
    write_npy(tmp_path / "f.npy")
    write_mgh(tmp_path / "g.mgz")
    write_mgh(tmp_path / "h.mgh")
    rows, skipped = search(tmp_path)
    assert rows[:8] == ["a.mha", "b.mhd", "c.mhd", "d.nrrd", "e.nhdr", "f.npy", "g.mgz", "h.mgh"]
    assert len(rows) == 8 + slices
    assert skipped.by_suffix == {}


def test_raw_files_that_nobody_names_are_skipped(tmp_path: Path) -> None:
    write_mhd(tmp_path / "a.mhd", name="a.raw")
    (tmp_path / "other.raw").write_bytes(b"x")
    (tmp_path / "other.json").write_bytes(b"{}")
    rows, skipped = search(tmp_path)
    assert rows == ["a.mhd"]
    assert skipped.by_suffix == {".raw": 1, ".json": 1}


def test_every_suffix_that_is_read_is_listed(tmp_path: Path) -> None:
    suffixes = {suffix for several in SUFFIXES.values() for suffix in several} - {".img", ".img.gz"}
    names = [f"scan{suffix}" for suffix in suffixes]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert search(tmp_path)[0] == sorted(names)


@pytest.mark.parametrize("name", ["a.mnc", "a.nii.bz2", "a.nii.xz", "a.nii.zst"])
def test_scans_that_are_not_read_are_rows_that_say_how_to_convert(tmp_path: Path, name: str) -> None:
    heads = {"a.mnc": b"\x89HDF", "a.nii.bz2": b"BZh9", "a.nii.xz": b"\xfd7zXZ", "a.nii.zst": b"\x28\xb5\x2f\xfd"}
    (tmp_path / name).write_bytes(heads[name] + bytes(600))
    assert search(tmp_path)[0] == [name]
    with pytest.raises(Exception, match=r"E_FORMAT.*run"):
        open_scan(tmp_path / name, limits=LIMITS)
