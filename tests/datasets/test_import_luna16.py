"""A download of LUNA16 becomes whole scans with nodules, opinions from LIDC-IDRI, and folds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from made_folders.luna16_like import write_luna16_like

from pipeline.cases.manifest import read_manifest
from pipeline.cli import run
from pipeline.config.inputs import Limits
from pipeline.datasets.import_luna16 import import_luna16
from pipeline.datasets.lidc import LidcNodule, load_nodules
from pipeline.datasets.scan_tables import scan_label
from pipeline.errors import UsageError
from pipeline.imaging.read import open_scan

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
ORIGIN = (-160.5, -171.25, -300.0)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def nodule(**wanted: str) -> LidcNodule:
    return next(each for each in load_nodules() if each.readings >= 3 and each.patient_id == wanted["patient"])


def write_scan(path: Path, *, spacing: float, direction: int = 1) -> None:
    """A MetaImage of 8 x 8 x 4 voxels with axes along L and P, or R and A."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {direction} 0 0 0 {direction} 0 0 0 1\nOffset = {ORIGIN[0]} {ORIGIN[1]} {ORIGIN[2]}\n"
        f"ElementSpacing = {spacing} {spacing} 1.25\nDimSize = 8 8 4\nElementType = MET_SHORT\n"
        f"ElementDataFile = {path.stem}.raw\n"
    )
    np.zeros((4, 8, 8), "<i2").tofile(path.with_suffix(".raw"))


def center(of: LidcNodule, direction: int = 1) -> list[float]:
    x, y = (
        start + direction * index * of.pixel_spacing_mm
        for start, index in zip(ORIGIN[:2], (of.centroid_x_px, of.centroid_y_px), strict=True)
    )
    return [x, y, of.centroid_z_mm]


def row(series: str, center_mm: list[float], diameter_mm: float) -> str:
    return ",".join([series, *map(str, center_mm), str(diameter_mm)]) + "\n"


def test_every_scan_nodule_and_fold_of_a_download_is_a_row(tmp_path: Path) -> None:
    made = write_luna16_like(tmp_path / "LUNA16", cases=12, seed=1, lung_masks=False)
    tables = import_luna16(tmp_path / "LUNA16", tmp_path)
    scans, lesions = table(tmp_path / "scans.csv"), table(tmp_path / "lesions.csv")
    annotations = table(tmp_path / "LUNA16" / "annotations.csv")
    assert tables.scan_count == len(scans) == len(made.expected.scans) + 1  # one has no nodule
    assert tables.lesion_count == len(lesions) == len(annotations)
    for scan in scans:
        assert scan["image"] == f"LUNA16/subset{scan['fold']}/{scan['case_id']}.mhd"
        assert open_scan(tmp_path / scan["image"], limits=Limits()).shape == (42, 42, 36)
        assert scan["patient_id"] == scan["case_id"]  # no series of LIDC-IDRI
        assert (scan["lesions"] == "0") == (scan["label"] == "0")
    for lesion in lesions:
        own = [entry for entry in annotations if entry["seriesuid"] == lesion["scan_id"]]
        assert any(abs(float(entry["coordZ"]) - float(lesion["center_z_mm"])) < 1e-3 for entry in own)
        assert (lesion["coordinate_system"], lesion["ignore"], lesion["label"]) == ("LPS", "0", "")
        assert lesion["fold"] == next(scan["fold"] for scan in scans if scan["case_id"] == lesion["scan_id"])
    assert len(read_manifest(tmp_path / "lesions.csv").cases) == len(lesions)


@pytest.mark.parametrize("direction", [1, -1])
def test_nodules_get_the_opinions_of_lidc_and_excluded_marks_are_ignored(tmp_path: Path, direction: int) -> None:
    one = nodule(patient="LIDC-IDRI-0001")
    series = one.series_instance_uid
    write_scan(tmp_path / "subset7" / f"{series}.mhd", spacing=one.pixel_spacing_mm, direction=direction)
    near, far = center(one, direction), center(one, direction)
    near[0] += 0.4 * one.diameter_mm
    far[1] += 60
    (tmp_path / "annotations.csv").write_text(HEADER + row(series, near, one.diameter_mm) + row("1.2.3", near, 5.0))
    folder = tmp_path / "evaluationScript" / "annotations"
    folder.mkdir(parents=True)
    (folder / "annotations_excluded.csv").write_text(HEADER + row(series, far, -1.0))
    tables = import_luna16(tmp_path, tmp_path)
    first, second = table(tmp_path / "lesions.csv")
    assert (first["label"], first["ratings"], first["solid"], first["ignore"]) == ("1", "5|5|5|4", "1", "0")
    assert [float(first[f"center_{axis}_mm"]) for axis in "xyz"] == pytest.approx(near, abs=1e-3)
    assert (second["label"], second["ignore"], second["diameter_mm"]) == ("", "1", "")
    (scan,) = table(tmp_path / "scans.csv")
    assert (scan["patient_id"], scan["label"], scan["fold"], scan["lesions"]) == ("LIDC-IDRI-0001", "1", "7", "1")
    assert (tables.ignored, tables.left_out) == (1, 1)


def test_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "subset0" / "1.2.3.mhd", spacing=0.7)
    (tmp_path / "annotations.csv").write_text(HEADER + row("1.2.3", [0, 0, 0], 5) + row("1.2.4", [0, 0, 0], 5))
    assert run(["import", "luna16", str(tmp_path), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 scan, 1 lesion; left out 1 of scans or slices that are not here" in out
    assert "not pathology" in out
    assert run(["import", "luna16", str(tmp_path), str(tmp_path)]) == 2
    assert "exists; move it away" in capsys.readouterr().err


def test_scan_whose_header_is_damaged_keeps_its_rows_for_the_reader(tmp_path: Path) -> None:
    one = nodule(patient="LIDC-IDRI-0001")
    series = one.series_instance_uid
    write_scan(tmp_path / "subset0" / f"{series}.mhd", spacing=0.7)
    (tmp_path / "subset0" / f"{series}.raw").unlink()
    (tmp_path / "annotations.csv").write_text(HEADER + row(series, center(one), 30.0))
    import_luna16(tmp_path, tmp_path)
    assert [lesion["label"] for lesion in table(tmp_path / "lesions.csv")] == [""]
    assert [scan["label"] for scan in table(tmp_path / "scans.csv")] == [""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no annotations.csv"),
        ("seriesuid,x\n1.2.3,4\n", "has no column 'coordX'; expected LUNA16's"),
        (HEADER + "1.2.3,1,2,far,5\n", "row 2: coordZ is 'far', expected a number"),
        (HEADER + "1.2.3,1,2,3,-1\n", "row 2: diameter_mm -1 is not above 0"),
    ],
)
def test_tables_of_another_form_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    write_scan(tmp_path / "subset0" / "1.2.3.mhd", spacing=0.7)
    if text is not None:
        (tmp_path / "annotations.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        import_luna16(tmp_path, tmp_path)
    assert not (tmp_path / "scans.csv").exists()


def test_folders_without_scans_or_with_one_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations.csv").write_text(HEADER + row("1.2.3", [0, 0, 0], 5))
    with pytest.raises(UsageError, match="holds no subset0 to subset9"):
        import_luna16(tmp_path, tmp_path)
    for number in (0, 3):
        write_scan(tmp_path / f"subset{number}" / "1.2.3.mhd", spacing=0.7)
    with pytest.raises(UsageError, match="the same series as"):
        import_luna16(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("labels", "ignored", "expected"),
    [
        ([], [], "0"),
        ([0, "0"], [], "0"),
        ([0, 1, ""], [], "1"),
        ([0, ""], [], ""),
        ([0], [1], ""),
        ([0], [0], "0"),
        ([1], [""], "1"),
    ],
)
def test_a_scans_label_is_unknown_where_a_lesion_could_be_malignant(labels, ignored, expected) -> None:
    assert scan_label(labels, ignored) == expected
