"""Searching folders: one row for every input, none lost, none invented, nothing followed or waited for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import ALL, SERIES, blank, ct_slice, phantom, save, write_multiframe, write_series
from pydicom.dataset import Dataset
from shared_data import SHARED

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.dicom.scan import open_series
from pipeline.imaging.discovery.find import FoundScan, find_scans
from pipeline.imaging.discovery.skipped import SkippedCount

UID8 = sha256_bytes(SERIES.encode())[:8]


def search(folder: Path) -> tuple[dict[str, FoundScan], SkippedCount]:
    skipped = SkippedCount()
    rows = list(find_scans(folder, skipped=skipped))
    assert len({row.name for row in rows}) == len(rows)
    assert not any("CANARY" in str(row.error) for row in rows)
    return {row.name: row for row in rows}, skipped


def codes(rows: dict[str, FoundScan]) -> dict[str, Code | None]:
    return {case_id: row.error.code if row.error else None for case_id, row in rows.items()}


def other_series(number: int = 2) -> object:
    def edit(image: Dataset, index: int) -> None:
        image.SeriesInstanceUID = f"{SERIES}.{number}"

    return edit


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_mixed_tree_gives_one_row_an_input_and_counts_the_rest(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/one.nii.gz",
        "a/two.NII",
        "b/pic.PNG",
        "b/photo.jpeg",
        "b/x.tif",
        "notes.txt",
        "a/table.csv",
        "a/.hidden",
        "LICENSE",
    )
    write_series(tmp_path / "c" / "deep")
    rows, skipped = search(tmp_path)
    assert codes(rows) == dict.fromkeys(
        ["a/one.nii.gz", "a/two.NII", "b/photo.jpeg", "b/pic.PNG", "b/x.tif", f"c/deep#{UID8}"], None
    )
    assert skipped.by_suffix == {".txt": 1, ".csv": 1, "(hidden)": 1, "": 1}
    assert skipped.total == 4


def test_series_without_suffix_opens_from_its_row(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    rows, _ = search(tmp_path)
    row = rows[f"s#{UID8}"]
    assert row.path == tmp_path / "s"
    assert row.files is not None
    assert len(row.files) == 16
    assert (open_series(row.files, limits=Limits()).read(ALL) == phantom()).all()


def test_series_in_the_root_is_named_by_a_dot(tmp_path: Path) -> None:
    write_multiframe(tmp_path / "x")
    assert list(search(tmp_path)[0]) == [f".#{UID8}"]


def test_two_series_in_a_folder_are_two_rows(tmp_path: Path) -> None:
    write_series(tmp_path / "first")
    write_series(tmp_path / "second", other_series())
    for path in (tmp_path / "second").iterdir():
        path.rename(tmp_path / "first" / f"{path.name}b")
    (tmp_path / "second").rmdir()
    rows, _ = search(tmp_path)
    assert [len(row.files or ()) for row in rows.values()] == [16, 16]
    assert set(codes(rows).values()) == {None}


def test_one_series_in_two_folders_is_one_row(tmp_path: Path) -> None:
    """Each half was a scan of its own, with half of the slices."""
    folder = write_series(tmp_path / "study" / "a")
    for number, path in enumerate(sorted(folder.iterdir())):
        if number % 3 == 0:
            (tmp_path / "study" / "b" / "deep").mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "study" / "b" / "deep" / path.name)
    touch(tmp_path, "one.nii")
    rows, _ = search(tmp_path)
    assert list(rows) == ["one.nii", f"study#{UID8}"]
    row = rows[f"study#{UID8}"]
    assert row.path == tmp_path / "study"
    scan = open_series(row.files or (), limits=Limits())
    np.testing.assert_array_equal(scan.read(ALL), phantom())
    assert scan.warnings == ()


def test_copies_of_a_series_are_one_row_and_flagged(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "backup" / "b")
    rows, _ = search(tmp_path)
    assert codes(rows) == {f".#{UID8}": None}
    scan = open_series(rows[f".#{UID8}"].files or (), limits=Limits())
    assert [warning.code for warning in scan.warnings] == [Code.W_DUPLICATE_FILE]
    np.testing.assert_array_equal(scan.read(ALL), phantom())


@pytest.mark.parametrize("name", ["x.dcm", "IM900", "1.2.3"])
def test_damaged_file_in_a_folder_of_its_own_refuses_the_series_spread_around_it(tmp_path: Path, name: str) -> None:
    for number, path in enumerate(sorted(write_series(tmp_path / "s" / "all").iterdir())):
        (tmp_path / "s" / f"{number}").mkdir()
        path.rename(tmp_path / "s" / f"{number}" / path.name)
    (tmp_path / "s" / "all").rmdir()
    touch(tmp_path, f"s/broken/{name}", "s/notes/table.x", "elsewhere/IM900")
    rows, skipped = search(tmp_path)
    assert codes(rows) == {f"s#{UID8}": Code.E_SLICE_UNREADABLE, f"s/broken/{name}": Code.E_FORMAT}
    assert skipped.by_suffix == {".x": 1, "": 1}


def test_damaged_file_beside_two_series_is_nobodys(tmp_path: Path) -> None:
    """One of them whole in this folder, the other spread over it and the next."""
    write_series(tmp_path / "a")
    for path in write_series(tmp_path / "b", other_series()).iterdir():
        if path.name > "IM007":
            path.rename(tmp_path / "a" / f"{path.name}b")
    touch(tmp_path, "a/broken.dcm")
    assert sorted(map(str, codes(search(tmp_path)[0]).values())) == ["E_FORMAT", "None", "None"]
    touch(tmp_path, "b/broken.dcm")  # here is one series only
    found = codes(search(tmp_path)[0])
    assert found[f".#{sha256_bytes(f'{SERIES}.2'.encode())[:8]}"] == Code.E_SLICE_UNREADABLE
    assert found[f"a#{UID8}"] is None


def test_series_whose_codes_begin_alike_get_longer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.imaging.dicom.select as module

    monkeypatch.setattr(module, "series_code", lambda uid: "0" * 9 + sha256_bytes(uid.encode()))
    write_series(tmp_path / "s")
    for path in write_series(tmp_path / "t", other_series()).iterdir():
        path.rename(tmp_path / "s" / f"{path.name}b")
    rows, _ = search(tmp_path)
    assert sorted(case_id[:11] for case_id in rows) == ["s#000000000"] * 2
    assert len(rows) == 2


def test_two_patients_in_a_series_are_one_rejected_row(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.PatientID = "MRN-CANARY-9" if index > 3 else "MRN-CANARY-8"

    rows, _ = search(write_series(tmp_path / "s", edit).parent)
    assert codes(rows) == {f"s#{UID8}": Code.E_MIXED_PATIENT}
    assert "2 patient ids" in str(rows[f"s#{UID8}"].error)


def test_zero_byte_file_among_slices_is_a_row_and_refuses_the_only_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", skip=(15,))
    (folder / "IM999.dcm").write_bytes(b"")
    assert codes(search(tmp_path)[0]) == {f"s#{UID8}": Code.E_SLICE_UNREADABLE, "s/IM999.dcm": Code.E_EMPTY_FILE}
    write_series(tmp_path / "t", other_series())
    for path in (tmp_path / "t").iterdir():
        path.rename(folder / f"{path.name}b")
    assert sorted(map(str, codes(search(tmp_path)[0]).values())) == ["E_EMPTY_FILE", "None", "None"]


def test_any_file_beside_slices_is_a_row(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    touch(folder, "IM777", "notes.x", "1.2.3.44")
    (folder / "half").write_bytes((folder / "IM003").read_bytes()[:200])
    found = codes(search(tmp_path)[0])
    assert found.pop(f"s#{UID8}") == Code.E_SLICE_UNREADABLE
    assert found == {
        "s/IM777": Code.E_FORMAT, "s/notes.x": Code.E_FORMAT, "s/1.2.3.44": Code.E_FORMAT, "s/half": Code.E_TRUNCATED,
    }  # fmt: skip


def test_documents_beside_slices_are_counted_and_refuse_nothing(tmp_path: Path) -> None:
    """As in a download of LIDC-IDRI, which has an .xml of annotations in the folder of every CT."""
    folder = write_series(tmp_path / "s")
    touch(folder, "069.xml", "table.CSV", "notes.txt", "a.json", "LICENSE", "DICOMDIR")
    (folder / "empty.log").write_bytes(b"")
    rows, skipped = search(tmp_path)
    assert codes(rows) == {f"s#{UID8}": None}
    assert skipped.by_suffix == {".xml": 1, ".csv": 1, ".txt": 1, ".json": 1, ".log": 1, "": 2}


def test_slice_named_like_a_document_is_a_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    (folder / "IM003").rename(folder / "IM003.txt")
    rows, skipped = search(tmp_path)
    assert len(rows[f"s#{UID8}"].files or ()) == 16
    assert skipped.total == 0


@pytest.mark.parametrize("name", ["IM777", "IM777.dcm", "IM777.bin", "IM777.dcm.part", "1.2.840.7"])
def test_damaged_file_beside_slices_that_is_no_document_stays_a_row(tmp_path: Path, name: str) -> None:
    touch(write_series(tmp_path / "s"), name)
    assert codes(search(tmp_path)[0])[f"s/{name}"] == Code.E_FORMAT


def test_dicom_suffix_without_dicom_content_is_a_row_anywhere(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.dcm", "a/y.IMA", "a/notes.txt")
    rows, skipped = search(tmp_path)
    assert codes(rows) == {"a/x.dcm": Code.E_FORMAT, "a/y.IMA": Code.E_FORMAT}
    assert skipped.by_suffix == {".txt": 1}


def test_scan_formats_that_are_not_read_are_rows(tmp_path: Path) -> None:
    touch(tmp_path, "a.nrrd", "b.mha")
    assert list(search(tmp_path)[0]) == ["a.nrrd", "b.mha"]


def test_pair_is_one_row_named_by_its_header(tmp_path: Path) -> None:
    touch(tmp_path, "pair.hdr", "pair.img", "alone.img", "z.hdr.gz", "z.img.gz")
    assert list(search(tmp_path)[0]) == ["alone.img", "pair.hdr", "z.hdr.gz"]


def test_dicomdir_and_macos_leavings_are_skipped(tmp_path: Path) -> None:
    index = blank(sop_class="1.2.840.10008.1.3.10")
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    touch(tmp_path, "README", "._IM0001.dcm")
    rows, skipped = search(tmp_path)
    assert rows == {}
    assert skipped.by_suffix == {"DICOMDIR": 1, "": 1, "(hidden)": 1}


def test_links_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "in.nii")
    touch(outside, "out.nii", "deep/more.nii", "out.txt")
    (root / "inner.nii").symlink_to(root / "in.nii")
    (root / "outer.nii").symlink_to(outside / "out.nii")
    (root / "text.txt").symlink_to(outside / "out.txt")
    (root / "broken.nii").symlink_to(root / "nothing")
    (root / "folder").symlink_to(outside / "deep")
    (root / "loop").symlink_to(root)
    rows, skipped = search(root)
    assert codes(rows) == {
        "broken.nii": Code.E_NOT_FOUND, "in.nii": None, "inner.nii": None, "outer.nii": Code.E_OUTSIDE_ROOT,
    }  # fmt: skip
    assert skipped.by_suffix == {"(link)": 3}


def test_root_may_be_a_link(tmp_path: Path) -> None:
    write_series(tmp_path / "real" / "s")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(search(tmp_path / "link")[0]) == [f"s#{UID8}"]


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.dcm")
    rows, skipped = search(tmp_path)
    assert codes(rows) == {"pipe.dcm": Code.E_NOT_REGULAR}
    assert skipped.by_suffix == {"(pipe, socket or device)": 1}
    save(ct_slice(0), tmp_path / "IM0")
    assert codes(search(tmp_path)[0]) == {
        f".#{UID8}": Code.E_SLICE_UNREADABLE, "pipe.dcm": Code.E_NOT_REGULAR, "pipe": Code.E_NOT_REGULAR,
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "shut/x.nii")
    (tmp_path / "shut").chmod(0)
    try:
        assert codes(search(tmp_path)[0]) == {"shut": Code.E_PERMISSION}
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_unlistable_folder_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "shut/x.nii", "open/y.nii")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert codes(search(tmp_path)[0]) == {"open/y.nii": None, "shut": Code.E_PERMISSION}


def test_name_that_is_not_text_still_gives_one(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.nii")).write_bytes(b"x")
    assert list(search(tmp_path)[0]) == ["bad\\xff.nii"]


def test_order_is_the_same_every_time_and_lazy(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{name}.nii" for folder in "zyx" for name in "cab"))
    rows = find_scans(tmp_path)
    assert next(rows).name == "x/a.nii"
    shutil.rmtree(tmp_path / "z")
    touch(tmp_path, "z/new.nii")
    assert [row.name for row in rows] == ["x/b.nii", "x/c.nii", "y/a.nii", "y/b.nii", "y/c.nii", "z/new.nii"]


def test_file_is_no_folder_to_search(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii")
    with pytest.raises(CaseError, match="expected a folder"):
        list(find_scans(tmp_path / "x.nii"))
    with pytest.raises(CaseError, match="no such file"):
        list(find_scans(tmp_path / "nothing"))


@pytest.mark.skipif(not (SHARED / "bad_scans").exists(), reason="no shared/bad_scans beside the repository")
def test_every_damaged_series_of_the_corpus_is_rejected_in_a_search(tmp_path: Path) -> None:
    rows, _ = search(SHARED / "bad_scans" / "dicom")
    for case_id, row in rows.items():
        folder = case_id.partition("#")[0].partition("/")[0]
        error = row.error
        if error is None:
            try:
                open_series(row.files or row.path, limits=Limits(max_voxels=10**7), modality="CT").read(ALL)
            except CaseError as raised:
                error = raised
        # Two series in a folder are separate rows here, and each of them is sound.
        sound = folder in ("ref", "phi_canary", "path_in_patient_id", "bad_charset", "rescale_varies", "two_patients")
        assert (error is None) == (sound or folder.startswith("eq_")), (case_id, error)
