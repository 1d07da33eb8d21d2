"""Each made folder's tables, annotations and oddities say what its stated truth says."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pydicom
import pytest
import SimpleITK
from made_folders import Unlabelled, Why, write_forty_cases
from made_folders.reading import components, from_itk, nearest_mm, read
from PIL import Image

# --- each folder's own truth ------------------------------------------------------------------------------------------


def test_masks_of_nifti_folders_give_the_stated_centres(made_folder):
    for name in ("ct_xlsx_masks", "mess"):
        folder = made_folder(name)
        stated = [scan for scan in folder.expected.scans if scan.lesions[0].stated_in]
        assert len(stated) >= 8
        for scan in stated:
            mask = nib.load(folder.folder / scan.lesions[0].stated_in)
            assert mask.affine == pytest.approx(nib.load(folder.path(scan)).affine)
            centers = [nib.affines.apply_affine(mask.affine, center) for center in components(mask.get_fdata())]
            assert len(centers) == len(scan.lesions)
            for lesion in scan.lesions:
                assert nearest_mm(lesion.center_mm, centers) < 0.01


def test_excel_list_says_what_is_true(made_folder):
    folder = made_folder("ct_xlsx_masks")
    book = openpyxl.load_workbook(folder.table)
    assert book.sheetnames == ["Patienten", "Legende"]
    lines = list(book["Patienten"].values)
    assert sum(value is not None for value in lines[0]) == 1  # the title
    header = lines[2]
    rows = [dict(zip(header, line, strict=True)) for line in lines[3:] if isinstance(line[1], int)]
    words = {row["Pat.-ID"]: (row["Histologie"] or "").strip().lower() for row in rows}
    assert {"gutartig", "maligne"} < set(words.values())
    scanned = set()
    for scan in folder.expected.scans:
        number = int(Path(scan.path).name.split("_")[1])
        scanned.add(number)
        assert str(number) == scan.patient
        assert words[number] == {True: "maligne", False: "gutartig", None: ""}[scan.malignant]
    assert {str(number) for number in words.keys() - scanned} == set(folder.expected.rows_without_scan)
    assert header[7] is None
    assert all(line[7] is None for line in lines)


def test_busi_masks_have_the_pictures_size_and_the_stated_centres(made_folder):
    folder = made_folder("busi_tree")
    assert folder.table is None
    assert {path.name for path in folder.folder.iterdir()} == {"benign", "malignant", "normal"}
    sizes = set()
    for scan in folder.expected.scans:
        assert scan.path.split("/")[0] == ("malignant" if scan.malignant else "benign")
        with Image.open(folder.path(scan)) as picture:
            assert picture.mode == "RGB"
            sizes.add(picture.size)
        for lesion in scan.lesions:
            with Image.open(folder.folder / lesion.stated_in) as mask:
                assert mask.size == Image.open(folder.path(scan)).size
                row, column = np.argwhere(np.asarray(mask)).mean(0)
            assert lesion.center_voxel == pytest.approx((column, row), abs=0.001)
    assert len(sizes) > 10
    for path in folder.expected.left_out_because(Why.NO_LESION):
        with Image.open(folder.folder / path.replace(".png", "_mask.png")) as mask:
            assert not np.asarray(mask).any()


def test_luna_tables_say_what_is_true(made_folder):
    folder = made_folder("luna16_like")
    annotations = pd.read_csv(folder.folder / "annotations.csv")
    labels = pd.read_csv(folder.table).set_index(["seriesuid", "coordX"])["malignant"]
    candidates = pd.read_csv(folder.folder / "candidates_V2.csv")
    assert list(annotations) == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    assert candidates["class"].sum() == len(annotations) == len(folder.expected.stated_lesions)
    for scan in folder.expected.scans:
        rows = annotations[annotations.seriesuid == Path(scan.path).stem]
        assert len(rows) == len(scan.lesions)
        for (_, row), lesion in zip(rows.iterrows(), scan.lesions, strict=True):
            assert (-row.coordX, -row.coordY, row.coordZ) == pytest.approx(lesion.center_mm, abs=1e-6)
            assert row.diameter_mm == lesion.diameter_mm
            label = labels.get((row.seriesuid, row.coordX))
            assert label == lesion.malignant if lesion.malignant is not None else label is None
    suffixes = {path.suffix for path in (folder.folder / "subset0").iterdir()}
    assert suffixes == {".mhd", ".raw", ".zraw"}
    empty = folder.expected.left_out_because(Why.NO_LESION)
    assert empty
    assert not {Path(path).stem for path in empty} & set(annotations.seriesuid)


def slicer_points(path: Path) -> tuple[str, list[np.ndarray]]:
    """The coordinate system that a markups file names, and its points in RAS mm; of a line its middle."""
    if path.suffix == ".fcsv":
        lines = path.read_text().splitlines()
        system = lines[1].split(" = ")[1]
        points = [np.array(line.split(",")[1:4], float) for line in lines[3:]]
    else:
        (markup,) = json.loads(path.read_text())["markups"]
        system = markup["coordinateSystem"]
        points = [np.array(point["position"]) for point in markup["controlPoints"]]
        points = [np.mean(points, axis=0)] if markup["type"] == "Line" else points
    return system, points if system in {"RAS", "0"} else [point * (-1, -1, 1) for point in points]


def test_slicer_files_say_what_is_true(made_folder):
    folder = made_folder("slicer_session")
    table = pd.read_csv(folder.table, sep="\t", keep_default_na=False).set_index("Folder")["Diagnosis"]
    kinds = set()
    for scan in folder.expected.scans:
        assert table[scan.path.split("/")[0]] == {True: "carcinoma", False: "benign", None: ""}[scan.malignant]
        for lesion in scan.lesions:
            path = folder.folder / lesion.stated_in
            if path.name.endswith(".seg.nrrd"):
                labels, affine = from_itk(SimpleITK.ReadImage(str(path)))
                points = [nib.affines.apply_affine(affine, center) for center in components(labels)]
                kinds.add("whole" if labels.shape == read(folder, scan)[0].shape else "cut")
            else:
                system, points = slicer_points(path)
                kinds.add((path.suffix, system))
            assert nearest_mm(lesion.center_mm, points) < 0.01, lesion.stated_in
    assert kinds == {"whole", "cut", (".json", "LPS"), (".json", "RAS"), (".fcsv", "0"), (".fcsv", "LPS")}
    assert folder.expected.left_out_because(Why.SCREENSHOT)


def test_heads_of_freesurfer_come_in_each_scanners_units(made_folder):
    folder = made_folder("mr_mgz")
    group = pd.read_csv(folder.table, sep="\t", keep_default_na=False).set_index("participant_id")["group"]
    kinds = {}
    for scan in folder.expected.scans:
        assert group[scan.patient] == {True: "patient", False: "control", None: "n/a"}[scan.malignant]
        assert scan.path.split("/")[0].split("_")[0] == scan.patient
        image = nib.load(folder.path(scan))
        kinds.setdefault(str(image.get_data_dtype().newbyteorder("=")), set()).add(scan.malignant)
        assert "".join(nib.aff2axcodes(image.affine)) == "LIA"
    assert set(kinds) == {"uint8", "int16", "float32"}
    assert all({True, False} <= labels for labels in kinds.values())  # the scanner does not give the label away
    assert any(scan.why_unlabelled == Unlabelled.BLANK for scan in folder.expected.scans)


def test_semicolon_export_says_what_is_true(made_folder):
    folder = made_folder("semicolon_export")
    content = folder.table.read_bytes()
    with pytest.raises(UnicodeDecodeError, match="utf-8"):
        content.decode()
    rows = list(csv.DictReader(content.decode("cp1252").splitlines(keepends=True), delimiter=";"))
    assert len(rows) == len(folder.expected.stated_lesions)
    assert {row["System"] for row in rows} == {"lps"}
    of_file = {file: [row for row in rows if row["Datei"] == file] for file in {row["Datei"] for row in rows}}
    mixed = 0
    for scan in folder.expected.scans:
        mixed += len({lesion.malignant for lesion in scan.lesions}) == 2
        for lesion, row in zip(scan.lesions, of_file[Path(scan.path).name], strict=True):
            x, y, z, diameter = (float(row[key].replace(",", ".")) for key in ("x", "y", "z", "Durchmesser (mm)"))
            assert (-x, -y, z) == pytest.approx(lesion.center_mm, abs=1e-9)
            assert diameter == lesion.diameter_mm
            assert row["Dignität"] == ("bösartig" if lesion.malignant else "gutartig")
            assert row["Patienten-Nr."] == scan.patient
            assert len(scan.patient) == 4
    assert mixed


def test_mammograms_are_four_views_of_a_patient_in_both_polarities(made_folder):
    folder = made_folder("mammography")
    rows = pd.read_csv(folder.table).set_index(["patient_id", "left or right breast"])["pathology"]
    assert set(rows) == {"MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"}
    polarities, views = set(), {}
    for scan in folder.expected.scans:
        image = pydicom.dcmread(folder.path(scan))
        assert (image.BitsAllocated, image.BitsStored, image.PresentationIntentType) == (16, 12, "FOR PRESENTATION")
        assert image.PatientID == scan.patient
        side = {"L": "LEFT", "R": "RIGHT"}[image.ImageLaterality]
        assert (rows[scan.patient, side] == "MALIGNANT") == scan.malignant
        polarities.add((image.PhotometricInterpretation, image.PresentationLUTShape))
        views.setdefault(scan.patient, set()).add(image.ImageLaterality + image.ViewPosition)
        edge = image.pixel_array[0, [0, -1]].max()  # air at the corners
        assert (edge > 3000) == (image.PhotometricInterpretation == "MONOCHROME1")
    assert polarities == {("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")}
    assert set(map(frozenset, views.values())) == {frozenset({"LCC", "LMLO", "RCC", "RMLO"})}


def test_forty_cases_hold_nothing_but_scans(tmp_path):
    folder = write_forty_cases(tmp_path / "forty")
    files = [path for path in folder.folder.rglob("*") if path.is_file()]
    assert len(files) == len(folder.expected.scans) == 40
    assert {path.parent.name for path in files} == {"benign", "malignant"}
    assert folder.expected.left_out == ()


# --- the mess ---------------------------------------------------------------------------------------------------------


def plain_id(text: str) -> str:
    """``Fall 007``, ``fall_7 `` and ``FALL 7`` are one."""
    return text.strip().lower().replace("_", " ").removeprefix("fall ").lstrip("0")


def test_table_of_the_mess_says_what_is_true(made_folder):
    folder = made_folder("mess")
    lines = folder.table.read_bytes().decode("utf-16").splitlines()
    words: dict[str, set[str]] = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        words.setdefault(plain_id(row["Patient"]), set()).add(row["Diagnose"].strip().lower())
    reasons = set()
    for scan in folder.expected.scans:
        name = unicodedata.normalize("NFC", Path(scan.path).name)
        assert name.startswith(f"Fall {scan.patient}")
        said = words.get(plain_id(scan.patient))
        if scan.malignant is not None:
            assert said == {"bösartig" if scan.malignant else "gutartig"}, scan.path
        else:
            reasons.add(scan.why_unlabelled)
            truth = {
                Unlabelled.BLANK: {""},
                Unlabelled.UNCLEAR: {"unklar"},
                Unlabelled.CONTRADICTORY: {"gutartig", "bösartig"},
                Unlabelled.NO_ROW: None,
            }
            assert said == truth[scan.why_unlabelled], scan.path
    assert reasons == set(Unlabelled)
    known = {plain_id(scan.patient) for scan in folder.expected.scans}
    assert set(words) - known == {plain_id(text) for text in folder.expected.rows_without_scan}
    assert len(lines) - 1 > len(words) + 1  # some rows are doubled


def test_splits_of_the_mess_are_its_folders_and_hold_both_classes(made_folder):
    folder = made_folder("mess")
    labels: dict[str, set[bool]] = {}
    splits: dict[str, set[str]] = {}
    for scan in folder.expected.scans:
        assert scan.path.split("/")[0] == {"validation": "val"}.get(scan.split, scan.split)
        splits.setdefault(scan.patient, set()).add(scan.split)
        if scan.malignant is not None:
            labels.setdefault(scan.split, set()).add(scan.malignant)
    assert labels == {split: {True, False} for split in ("train", "validation", "test")}
    assert all(len(places) == 1 for places in splits.values())


def test_copies_and_broken_files_of_the_mess_are_what_they_say(made_folder):
    folder = made_folder("mess")
    for item in folder.expected.left_out:
        path = folder.folder / item.path
        if item.why == Why.DUPLICATE:
            assert path.read_bytes() == (folder.folder / item.of).read_bytes()
        elif item.why == Why.EMPTY:
            assert path.stat().st_size == 0
        elif item.why == Why.TRUNCATED and path.name.endswith(".nii.gz"):
            with pytest.raises((EOFError, OSError), match=r"end-of-stream|Compressed"):
                nib.load(path).get_fdata()
    whys = {item.why for item in folder.expected.left_out}
    assert whys == {Why.DUPLICATE, Why.EMPTY, Why.TRUNCATED, Why.SYSTEM_FILE, Why.DOCUMENT, Why.MASK}
    assert any(item.path.startswith("test/") for item in folder.expected.left_out if item.why == Why.DUPLICATE)
    names = [path.name for path in folder.folder.rglob("Fall *")]
    assert any(unicodedata.normalize("NFC", name) != name for name in names)
    assert any("ö" in name for name in names)
