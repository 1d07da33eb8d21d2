"""A TCIA download of LIDC-IDRI becomes lesion-centred cases at the places that the annotations say."""

from __future__ import annotations

import csv
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from shared_data import SHARED

from pipeline.cli import run
from pipeline.datasets.import_lidc import import_lidc
from pipeline.datasets.import_lidc_scans import import_lidc_scans
from pipeline.datasets.lidc import LidcNodule, load_nodules, load_scans
from pipeline.datasets.scan_tables import ImportedScans
from pipeline.errors import UsageError

REAL = SHARED / "data" / "lidc_ct"


def table(manifest: Path) -> list[dict[str, str]]:
    with open(manifest, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def nodule(patient: str = "LIDC-IDRI-0001") -> LidcNodule:
    return next(each for each in load_nodules() if each.patient_id == patient)


def write_ct(folder: Path, of: LidcNodule, *, slices: int = 5, cosines: tuple[int, ...] = (1, 0, 0, 0, 1, 0)) -> Path:
    """A few slices around a nodule, with the headers that the importer needs."""
    folder.mkdir(parents=True)
    for number in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID, image.SeriesInstanceUID = (
            CTImageStorage,
            f"1.2.3.{number}",
            of.series_instance_uid,
        )
        image.Modality, image.PatientID = "CT", "CANARY-77"
        image.Rows = image.Columns = 8
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.PixelSpacing, image.ImageOrientationPatient = [of.pixel_spacing_mm] * 2, list(cosines)
        image.ImagePositionPatient = [-166, -171.7, round(of.centroid_z_mm) + number - slices // 2]
        image.PixelData = bytes(128)
        image["PixelData"].VR = "OW"
        image.save_as(folder / f"1-{number:03d}.dcm", enforce_file_format=True)
    return folder


def test_nodule_lies_where_the_annotation_says(tmp_path: Path) -> None:
    one = nodule()
    write_ct(tmp_path / "LIDC" / "a" / "b", one)
    rows = table(import_lidc(tmp_path / "LIDC", tmp_path))
    assert len(rows) == 1
    row = rows[0]
    assert (row["case_id"], row["patient_id"], row["image"]) == (one.nodule_id, one.patient_id, "LIDC/a/b")
    assert (row["label"], row["ratings"], row["coordinate_system"], row["center_in_slices"]) == (
        "1",
        "5|5|5|4",
        "LPS",
        "yes",
    )
    center = [float(row[f"center_{axis}_mm"]) for axis in "xyz"]
    expected = [-166 + one.centroid_x_px * 0.703125, -171.7 + one.centroid_y_px * 0.703125, one.centroid_z_mm]
    np.testing.assert_allclose(center, expected, atol=1e-3)


def test_manifest_can_lie_in_the_download_or_have_a_name(tmp_path: Path) -> None:
    write_ct(tmp_path / "LIDC" / "a", nodule())
    assert import_lidc(tmp_path / "LIDC", tmp_path / "LIDC") == tmp_path / "LIDC" / "manifest.csv"
    named = import_lidc(tmp_path / "LIDC", tmp_path / "mine.csv")
    assert named == tmp_path / "mine.csv"
    assert table(named)[0]["image"] == "LIDC/a"
    with pytest.raises(UsageError, match="exists; remove it"):
        import_lidc(tmp_path / "LIDC", tmp_path / "mine.csv")


def test_manifest_elsewhere_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write_ct(tmp_path / "LIDC" / "a", nodule())
    with pytest.raises(UsageError, match="images lie under their manifest's folder; use"):
        import_lidc(tmp_path / "LIDC", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_part_of_a_series_says_which_centres_it_lacks(tmp_path: Path) -> None:
    four = nodule("LIDC-IDRI-0003")
    write_ct(tmp_path / "a", four)
    rows = table(import_lidc(tmp_path, tmp_path))
    assert [(row["case_id"], row["center_in_slices"]) for row in rows] == [
        ("LIDC-IDRI-0003-n1", "yes"),
        ("LIDC-IDRI-0003-n2", "no"),
        ("LIDC-IDRI-0003-n3", "no"),
        ("LIDC-IDRI-0003-n4", "no"),
    ]


def test_mean_of_three_has_no_label(tmp_path: Path) -> None:
    undecided = next(each for each in load_nodules() if sum(each.ratings["malignancy"]) == 3 * each.readings)
    write_ct(tmp_path / "a", undecided)
    labels = {row["case_id"]: row["label"] for row in table(import_lidc(tmp_path, tmp_path))}
    assert labels[undecided.nodule_id] == ""


def test_no_value_of_the_files_patients_reaches_the_table(tmp_path: Path) -> None:
    write_ct(tmp_path / "a", nodule())
    assert "CANARY" not in import_lidc(tmp_path, tmp_path).read_text()


def test_damaged_slice_keeps_the_case_for_its_reader(tmp_path: Path) -> None:
    folder = write_ct(tmp_path / "a", nodule())
    (folder / "1-001.dcm").write_bytes(b"")
    assert len(table(import_lidc(tmp_path, tmp_path))) == 1


def test_copy_of_a_series_makes_no_second_case(tmp_path: Path) -> None:
    """The search puts both folders together, and the reader leaves identical copies out."""
    shutil.copytree(write_ct(tmp_path / "a", nodule()), tmp_path / "b")
    assert len(table(import_lidc(tmp_path, tmp_path))) == 1


def test_series_that_is_not_axial_is_refused(tmp_path: Path) -> None:
    write_ct(tmp_path / "a", nodule(), cosines=(0, 1, 0, 0, 0, -1))
    with pytest.raises(UsageError, match="not the axial CT"):
        import_lidc(tmp_path, tmp_path)


def test_folder_without_lidc_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="no CT series of LIDC-IDRI"):
        import_lidc(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        import_lidc(tmp_path / "nothing", tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        import_lidc(tmp_path / "notes.txt", tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason="no shared/data/lidc_ct beside the repository")
def test_real_slabs_have_the_published_centres(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "lidc")
    rows = table(import_lidc(tmp_path / "lidc", tmp_path))
    expected = table(REAL / "nodules.csv")
    assert expected
    for want in expected:
        (found,) = [
            row for row in rows if row["patient_id"] == want["patient_id"] and row["ratings"] == want["ratings"]
        ]
        for name in ("center_x_mm", "center_y_mm", "center_z_mm"):
            assert float(found[name]) == pytest.approx(float(want[name]), abs=0.02)
        assert float(found["diameter_mm"]) == pytest.approx(float(want["diameter_mm"]), abs=0.1)
        assert found["image"] == f"lidc/{want['image']}"
        assert found["coordinate_system"] == want["coordinate_system"]


def lesions_of(tables: ImportedScans) -> list[dict[str, str]]:
    return table(tables.scans.with_name("lesions.csv"))


def slab(folder: Path, of: LidcNodule, *, below_mm: float, above_mm: float) -> None:
    """Two slices whose heights are below and above a nodule's centre by so much."""
    for number, z in enumerate((of.centroid_z_mm - below_mm, of.centroid_z_mm + above_mm)):
        path = folder / f"1-{number:03d}.dcm"
        image = dcmread(path)
        image.ImagePositionPatient = [-166, -171.7, z]
        image.save_as(path)


def test_whole_scans_have_all_nodules_and_ignore_those_of_few_readers(tmp_path: Path) -> None:
    groups = itertools.groupby(load_nodules(), key=lambda each: each.series_instance_uid)
    series = next(
        group for group in (list(members) for _, members in groups) if {1, 2, 3} <= {n.readings for n in group}
    )
    slab(write_ct(tmp_path / "LIDC" / "a", series[0], slices=2), series[0], below_mm=400, above_mm=400)
    tables = import_lidc_scans(tmp_path / "LIDC", tmp_path)
    rows = {row["case_id"]: row for row in lesions_of(tables)}
    assert set(rows) == {member.nodule_id for member in series}
    for member in series:
        row = rows[member.nodule_id]
        assert row["ignore"] == str(int(member.readings < 2))
        assert row["ratings"] == "|".join(map(str, member.ratings["malignancy"]))
        assert {row["solid"], row["part_solid_or_ground_glass"]} in ({"0", "1"}, {""})
        votes = [code != 6 for code in member.ratings["calcification"]]
        share = sum(votes) / len(votes)
        assert row["calcified"] == ("" if share == 0.5 else str(int(share > 0.5)))
    (scan,) = table(tables.scans)
    assert scan["image"] == "LIDC/a"
    assert {row["scan_id"] for row in rows.values()} == {scan["case_id"]}
    assert int(scan["lesions"]) == tables.lesion_count == len(series) - tables.ignored
    assert tables.ignored > 0
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    strict = import_lidc_scans(tmp_path / "LIDC", tmp_path, least_readers=3)
    assert strict.ignored == sum(member.readings < 3 for member in series)


def test_readers_are_counted_for_whole_scans_only(tmp_path: Path, capsys) -> None:
    write_ct(tmp_path / "a", nodule())
    assert run(["import", "lidc", str(tmp_path), str(tmp_path), "--least-readers", "3"]) == 2
    assert "--least-readers goes with --whole-scans" in capsys.readouterr().err


def test_whole_scans_without_a_nodule_are_benign_rows(tmp_path: Path) -> None:
    with_nodules = {each.series_instance_uid for each in load_nodules()}
    empty = next(scan for scan in load_scans() if scan.series_instance_uid not in with_nodules)
    write_ct(tmp_path / "a", replace(nodule(), series_instance_uid=empty.series_instance_uid))
    tables = import_lidc_scans(tmp_path, tmp_path)
    (scan,) = table(tables.scans)
    assert (scan["patient_id"], scan["label"], scan["lesions"]) == (empty.patient_id, "0", "0")
    assert lesions_of(tables) == []


@pytest.mark.parametrize(("above_mm", "rows", "label"), [(-10.0, ["1"], ""), (0.1, ["0"], "1"), (-40.0, [], "0")])
def test_nodule_partly_outside_the_slices_is_ignored_and_one_wholly_outside_left_out(
    tmp_path: Path, above_mm: float, rows: list[str], label: str
) -> None:
    one = nodule()  # malignant, 36 mm wide
    slab(write_ct(tmp_path / "a", one, slices=2), one, below_mm=50, above_mm=above_mm)
    tables = import_lidc_scans(tmp_path, tmp_path)
    assert [row["ignore"] for row in lesions_of(tables)] == rows
    assert table(tables.scans)[0]["label"] == label
    assert tables.left_out == 1 - len(rows)


def test_whole_scans_elsewhere_or_twice_are_refused(tmp_path: Path) -> None:
    write_ct(tmp_path / "LIDC" / "a", nodule())
    with pytest.raises(UsageError, match="images lie under their table's folder; use"):
        import_lidc_scans(tmp_path / "LIDC", tmp_path / "elsewhere")
    import_lidc_scans(tmp_path / "LIDC", tmp_path)
    with pytest.raises(UsageError, match=r"scans\.csv: exists; move it away"):
        import_lidc_scans(tmp_path / "LIDC", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no CT series of LIDC-IDRI"):
        import_lidc_scans(tmp_path / "empty", tmp_path / "empty")


@pytest.mark.skipif(not REAL.exists(), reason="no shared/data/lidc_ct beside the repository")
def test_real_slabs_become_whole_scans_with_the_published_centres(tmp_path: Path, capsys) -> None:
    shutil.copytree(REAL, tmp_path / "lidc")
    assert run(["import", "lidc", str(tmp_path / "lidc"), str(tmp_path), "--whole-scans"]) == 0
    assert "3 scans" in capsys.readouterr().out
    scans, lesions = table(tmp_path / "scans.csv"), table(tmp_path / "lesions.csv")
    assert [row["patient_id"] for row in scans] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"]
    assert [row["label"] for row in scans] == ["1", "", "1"]
    for want in table(REAL / "nodules.csv"):
        image = f"lidc/{want['image']}"
        (found,) = [row for row in lesions if (row["image"], row["ratings"]) == (image, want["ratings"])]
        # The second slab ends 8 mm from the nodule's centre.
        assert found["ignore"] == str(int(want["patient_id"] == "LIDC-IDRI-0002"))
        for name in ("center_x_mm", "center_y_mm", "center_z_mm"):
            assert float(found[name]) == pytest.approx(float(want[name]), abs=0.02)
