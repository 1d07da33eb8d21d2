"""The made folders are what they say: readable by the programs they imitate, true to their stated truth, separable."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import unicodedata
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pydicom
import pytest
import SimpleITK
from made_folders import MAKERS, MadeFolder, MadeScan, Unlabelled, Why, write_forty_cases
from made_folders.geometry import LPS_TO_RAS, make_grid
from PIL import Image
from pydicom.fileset import FileSet
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEW = dict.fromkeys(MAKERS, 24) | {"dicom_study_tree": 12}
IN_LESION = {"CT": -450.0, "MR": 1.7, "US": -75.0, "MG": 1500.0}  # US counts down: lesions are dark
BESIDE_SCANS = {".raw", ".zraw", ".mrml", ".csv", ".tsv", ".json", ".txt", ".xlsx", ".stats", ".log"}
NAMES = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small folder of each kind, written when it is first asked for."""

    @functools.cache
    def write(name: str) -> MadeFolder:
        return MAKERS[name](tmp_path_factory.mktemp(name) / "folder", cases=FEW[name])

    return write


def read(folder: MadeFolder, scan: MadeScan) -> tuple[np.ndarray, np.ndarray | None]:
    """Values along the stored axes, as the format's own program shows them, and the affine to RAS mm or None."""
    path = folder.path(scan)
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L")).T.astype(float), None
    if path.suffix == ".dcm":
        image = pydicom.dcmread(path)
        stored = image.pixel_array.T.astype(float)
        return (4095 - stored if image.PhotometricInterpretation == "MONOCHROME1" else stored), None
    if path.name.endswith((".nii.gz", ".mgz")):
        image = nib.load(path)
        return image.get_fdata(), image.affine
    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        return from_itk(reader.Execute())
    return from_itk(SimpleITK.ReadImage(str(path)))


def from_itk(image: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T.astype(float), LPS_TO_RAS @ affine


def in_units(values: np.ndarray, modality: str) -> np.ndarray:
    """Brightness that lesions have more of: HU, MR relative to the head's median, dark ultrasound, dense breast."""
    if modality == "MR":
        return values / np.median(values[values > 0.3 * np.percentile(values, 99)])
    return -values if modality == "US" else values


def around(values: np.ndarray, center: tuple[float, ...], reach: int) -> np.ndarray:
    """The cube of voxels around a centre."""
    middle = np.rint(center).astype(int)
    return values[tuple(slice(max(n - reach, 0), n + reach + 1) for n in middle)]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Centroids of a mask's lesions in voxels: a connected part of a label each."""
    centers = []
    for label in np.unique(mask[mask > 0]):
        parts, count = ndimage.label(mask == label, np.ones((3,) * mask.ndim))
        centers += [np.argwhere(parts == number).mean(0) for number in range(1, count + 1)]
    return centers


def nearest_mm(point: np.ndarray, points: list[np.ndarray]) -> float:
    return min(float(np.linalg.norm(np.subtract(point, other))) for other in points)


# --- all folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "dicom_study_tree" else ()) for name in MAKERS]
)
def test_same_seed_writes_same_bytes_and_another_seed_other_images(name, made, tmp_path):
    first = made(name)
    again = MAKERS[name](tmp_path / "again", cases=FEW[name])
    other = MAKERS[name](tmp_path / "other", cases=12, seed=1)
    assert digests(first.folder) == digests(again.folder)
    assert again.expected == first.expected
    scan, changed = first.expected.scans[0], other.expected.scans[0]
    assert not np.array_equal(read(first, scan)[0], read(other, changed)[0])


@NAMES
def test_every_file_is_a_scan_left_out_or_beside_scans(name, made):
    folder = made(name)
    told = {scan.path for scan in folder.expected.scans} | {item.path for item in folder.expected.left_out}
    for path in told:
        assert (folder.folder / path).exists(), path
    for path in folder.folder.rglob("*"):
        if path.is_file():
            place = path.relative_to(folder.folder)
            known = place.as_posix() in told or place.parent.as_posix() in told
            assert known or path.suffix in BESIDE_SCANS, place
    sources = {scan.path for scan in folder.expected.scans} | set(folder.expected.left_out_because(Why.NO_LESION))
    assert {item.of for item in folder.expected.left_out if item.of} <= sources


@NAMES
def test_scans_are_small_and_their_lesions_lie_in_them(name, made):
    folder = made(name)
    expected = folder.expected
    assert len(expected.scans) == (2 if name == "mammography" else 1) * FEW[name]
    for scan in expected.scans:
        values, affine = read(folder, scan)
        assert values.ndim == (2 if affine is None else 3), scan.path
        assert 24 <= min(values.shape) <= max(values.shape) <= 110, scan.path
        bright = in_units(values, expected.modality)
        for lesion in scan.lesions:
            assert (lesion.center_mm is None) == (affine is None)
            assert np.all(np.array(lesion.center_voxel) > 2)
            assert np.all(np.array(lesion.center_voxel) < np.array(values.shape) - 3)
            if affine is not None:
                world = affine @ (*lesion.center_voxel, 1)
                assert world[:3] == pytest.approx(lesion.center_mm, abs=0.01), scan.path
            inside = around(bright, lesion.center_voxel, 1).mean()
            assert inside > IN_LESION[expected.modality], scan.path
            # A lesion stands out of what is around it, also where it fills most of that.
            assert inside > np.percentile(around(bright, lesion.center_voxel, 14), 25), scan.path


@NAMES
def test_values_are_those_of_the_modality(name, made):
    folder = made(name)
    for scan in folder.expected.scans:
        values, _ = read(folder, scan)
        low, high = values.min(), values.max()
        if folder.expected.modality == "CT":
            assert np.all(values == np.rint(values))
            assert low == -3024 or -1024 <= low < -950
            assert 100 < high <= 3071
            assert -900 < np.median(values[values > -950]) < -750  # most of the body shown is lung
        elif folder.expected.modality == "MR":
            assert low >= 0
            assert 80 < high < 8000
        else:
            assert low >= 0
            assert high <= (255 if folder.expected.modality == "US" else 4095)


@NAMES
def test_half_of_the_patients_are_malignant_and_some_come_twice(name, made):
    expected = made(name).expected
    labels = [scan.malignant for scan in expected.labelled]
    assert 0.3 <= np.mean(labels) <= 0.65
    assert (expected.patients is None) == (name in {"busi_tree", "forty_cases"})
    if name not in {"busi_tree", "forty_cases", "luna16_like"}:
        assert expected.patients < len(expected.scans)
    assert len(expected.stated_lesions) > len(expected.scans) or expected.region == "image"


def measures(folder: MadeFolder) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two numbers of each labelled lesion (of a head, of the image): size and brightness; labels; patients."""
    numbers, labels, patients = [], [], []
    modality = folder.expected.modality
    for scan in folder.expected.labelled:
        values = in_units(read(folder, scan)[0], modality)
        if modality == "MR":
            numbers.append((np.log1p(np.sum(values > 1.75)), np.percentile(values, 99.9)))
            labels.append(scan.malignant)
            patients.append(scan.patient or scan.path)
            continue
        for lesion in scan.lesions:
            region = around(values, lesion.center_voxel, 7 if values.ndim == 3 else 14)
            middle = around(values, lesion.center_voxel, 1).mean()
            numbers.append((np.log1p(np.sum(region > (np.median(region) + middle) / 2)), middle))
            labels.append(lesion.malignant)
            patients.append(scan.patient or scan.path)
    return np.array(numbers), np.array(labels), patients


def separation(folder: MadeFolder) -> float:
    """AUROC of a logistic regression on the two measures, of patients it was not fitted on."""
    numbers, labels, patients = measures(folder)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    said = cross_val_predict(model, numbers, labels, groups=patients, cv=folds, method="predict_proba")
    return float(roc_auc_score(labels, said[:, 1]))


@NAMES
def test_size_and_brightness_separate_the_classes(name, made):
    assert separation(made(name)) >= (0.97 if name == "forty_cases" else 0.9)


@pytest.mark.slow
@NAMES
def test_folder_of_default_size_is_below_40_mb_and_separable(name, tmp_path):
    folder = MAKERS[name](tmp_path / "folder")
    assert 40 <= len(folder.expected.scans) <= 96
    assert sum(path.stat().st_size for path in folder.folder.rglob("*") if path.is_file()) < 40e6
    assert separation(folder) >= (0.97 if name == "forty_cases" else 0.9)


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_forty_cases(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_too_few_cases_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cases: 11 is below 12"):
        write_forty_cases(tmp_path, cases=11)


def test_grid_axes_are_what_nibabel_calls_them():
    for axes in ("LAS", "LPS", "RAS", "LIA"):
        grid = make_grid((5, 6, 7), (1.0, 2.0, 3.0), center_mm=(1, 2, 3), axes=axes)
        assert "".join(nib.aff2axcodes(grid.affine)) == axes
        assert grid.center_mm == pytest.approx((1, 2, 3))
        assert grid.to_voxel(grid.to_mm((1, 2, 3))) == pytest.approx((1, 2, 3))


# --- each folder's own truth ------------------------------------------------------------------------------------------


def test_masks_of_nifti_folders_give_the_stated_centres(made):
    for name in ("ct_xlsx_masks", "mess"):
        folder = made(name)
        stated = [scan for scan in folder.expected.scans if scan.lesions[0].stated_in]
        assert len(stated) >= 8
        for scan in stated:
            mask = nib.load(folder.folder / scan.lesions[0].stated_in)
            assert mask.affine == pytest.approx(nib.load(folder.path(scan)).affine)
            found = [nib.affines.apply_affine(mask.affine, center) for center in components(mask.get_fdata())]
            assert len(found) == len(scan.lesions)
            for lesion in scan.lesions:
                assert nearest_mm(lesion.center_mm, found) < 0.01


def test_excel_list_says_what_is_true(made):
    folder = made("ct_xlsx_masks")
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


def test_busi_masks_have_the_pictures_size_and_the_stated_centres(made):
    folder = made("busi_tree")
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


def test_luna_tables_say_what_is_true(made):
    folder = made("luna16_like")
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


def slicer_points(path: Path) -> list[np.ndarray]:
    """What a markups file says, in RAS mm; of a line its middle."""
    if path.suffix == ".fcsv":
        lines = path.read_text().splitlines()
        system = lines[1].split(" = ")[1]
        points = [np.array(line.split(",")[1:4], float) for line in lines[3:]]
    else:
        (markup,) = json.loads(path.read_text())["markups"]
        system = markup["coordinateSystem"]
        points = [np.array(point["position"]) for point in markup["controlPoints"]]
        points = [np.mean(points, axis=0)] if markup["type"] == "Line" else points
    return points if system in {"RAS", "0"} else [point * (-1, -1, 1) for point in points]


def test_slicer_files_say_what_is_true(made):
    folder = made("slicer_session")
    table = pd.read_csv(folder.table, sep="\t", keep_default_na=False).set_index("Folder")["Diagnosis"]
    systems = set()
    for scan in folder.expected.scans:
        assert table[scan.path.split("/")[0]] == {True: "carcinoma", False: "benign", None: ""}[scan.malignant]
        for lesion in scan.lesions:
            path = folder.folder / lesion.stated_in
            if path.name.endswith(".seg.nrrd"):
                labels, affine = from_itk(SimpleITK.ReadImage(str(path)))
                found = [nib.affines.apply_affine(affine, center) for center in components(labels)]
                systems.add("whole" if labels.shape == read(folder, scan)[0].shape else "cut")
            else:
                found = slicer_points(path)
                systems.add(
                    (path.suffix, path.read_text().split("oordinateSystem")[1][:10].strip('": =\n').split("\n")[0][:3])
                )
            assert nearest_mm(lesion.center_mm, found) < 0.01, lesion.stated_in
    assert len(systems) == 6  # .mrk.json and .fcsv in both systems, whole and cut segmentations
    assert folder.expected.left_out_because(Why.SCREENSHOT)


def test_heads_of_freesurfer_come_in_each_scanners_units(made):
    folder = made("mr_mgz")
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


def test_semicolon_export_says_what_is_true(made):
    folder = made("semicolon_export")
    content = folder.table.read_bytes()
    with pytest.raises(UnicodeDecodeError, match="utf-8"):
        content.decode()
    rows = list(csv.DictReader(content.decode("cp1252").splitlines(keepends=True), delimiter=";"))
    assert len(rows) == len(folder.expected.stated_lesions)
    assert {row["System"] for row in rows} == {"lps"}
    rest = iter(rows)
    by_plan = {row["Datei"]: [other for other in rows if other["Datei"] == row["Datei"]] for row in rest}
    mixed = 0
    for scan in folder.expected.scans:
        mixed += len({lesion.malignant for lesion in scan.lesions}) == 2
        for lesion, row in zip(scan.lesions, by_plan[Path(scan.path).name], strict=True):
            x, y, z, diameter = (float(row[key].replace(",", ".")) for key in ("x", "y", "z", "Durchmesser (mm)"))
            assert (-x, -y, z) == pytest.approx(lesion.center_mm, abs=1e-9)
            assert diameter == lesion.diameter_mm
            assert row["Dignität"] == ("bösartig" if lesion.malignant else "gutartig")
            assert row["Patienten-Nr."] == scan.patient
            assert len(scan.patient) == 4
    assert mixed


def test_mammograms_are_four_views_of_a_patient_in_both_polarities(made):
    folder = made("mammography")
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


def test_forty_cases_hold_nothing_but_scans(made, tmp_path):
    folder = write_forty_cases(tmp_path / "forty")
    files = [path for path in folder.folder.rglob("*") if path.is_file()]
    assert len(files) == len(folder.expected.scans) == 40
    assert {path.parent.name for path in files} == {"benign", "malignant"}
    assert folder.expected.left_out == ()


# --- DICOM ------------------------------------------------------------------------------------------------------------


def test_export_has_two_kernels_a_localizer_and_an_index_of_all(made):
    folder = made("dicom_study_tree")
    indexed = {Path(instance.path).resolve() for instance in FileSet(folder.folder / "DICOMDIR")}
    files = [path for path in folder.folder.rglob("IM*") if path.is_file()]
    assert all(path.suffix == "" for path in files)
    assert indexed == {path.resolve() for path in files}
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    assert len({header.SOPInstanceUID for header in headers}) == len(files)
    assert {header.Modality for header in headers} == {"CT", "SEG", "SR", "RTSTRUCT"}
    for item in folder.expected.left_out:
        if item.why == Why.OTHER_RECONSTRUCTION:
            one, other = (pydicom.dcmread(folder.folder / path / "IM0001") for path in (item.path, item.of))
            assert one.ConvolutionKernel != other.ConvolutionKernel
            assert one.StudyInstanceUID == other.StudyInstanceUID
            assert one.SeriesInstanceUID != other.SeriesInstanceUID
    for path in folder.expected.left_out_because(Why.LOCALIZER):
        assert "LOCALIZER" in pydicom.dcmread(folder.folder / path / "IM0001").ImageType
    for path in folder.folder.rglob("DIRFILE"):
        assert len(list(FileSet(path))) == len(list(path.parent.glob("IM*")))


def annotated_centers(path: Path, folder: Path) -> list[np.ndarray]:
    """Centres in RAS mm of what a DICOM annotation outlines."""
    image = pydicom.dcmread(path)
    if image.Modality == "SEG":
        segmentation = hd.seg.segread(path)
        centers = []
        for number in segmentation.segment_numbers:
            volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
            centers.append(volume.affine @ (*np.argwhere(volume.array).mean(0), 1))
        return [center[:3] * (-1, -1, 1) for center in centers]
    if image.Modality == "SR":
        groups = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
        return [np.mean(group.roi.value, axis=0) * (-1, -1, 1) for group in groups]
    kinds = {item.ReferencedROINumber: item.RTROIInterpretedType for item in image.RTROIObservationsSequence}
    centers = []
    for item in image.ROIContourSequence:
        if kinds[item.ReferencedROINumber] != "EXTERNAL":
            points = [np.reshape(contour.ContourData, (-1, 3)).astype(float) for contour in item.ContourSequence]
            areas = np.array([_area(outline) for outline in points])
            middles = np.array([(outline.min(0) + outline.max(0)) / 2 for outline in points])
            centers.append(areas @ middles / areas.sum() * (-1, -1, 1))
    return centers


def _area(outline: np.ndarray) -> float:
    crossed = np.cross(outline, np.roll(outline, -1, axis=0)).sum(0)
    return float(np.linalg.norm(crossed)) / 2


def test_dicom_annotations_state_the_centres_of_the_sharp_series(made):
    folder = made("dicom_study_tree")
    table = pd.read_csv(folder.table, dtype=str).set_index("imaging_accession")
    kinds, outlined_bodies = set(), 0
    for scan in folder.expected.scans:
        path = folder.folder / scan.lesions[0].stated_in
        annotation, image = pydicom.dcmread(path), pydicom.dcmread(folder.path(scan) / "IM0001")
        assert image.SeriesInstanceUID in str(annotation)
        assert annotation.StudyInstanceUID == image.StudyInstanceUID
        kinds.add(annotation.Modality)
        found = annotated_centers(path, folder.folder)
        assert len(found) == len(scan.lesions)
        # Half a voxel for outlines, whose middle is taken coarsely here.
        near = 1.1 if annotation.Modality == "RTSTRUCT" else 0.01
        assert all(nearest_mm(lesion.center_mm, found) < near for lesion in scan.lesions), annotation.Modality
        if annotation.Modality == "RTSTRUCT":
            outlined_bodies += len(annotation.ROIContourSequence) > len(found)
        row = table.loc[image.AccessionNumber]
        assert row["hospital_no"] == image.PatientID == scan.patient
        assert row["behaviour"] == {True: "malignant", False: "benign", None: "uncertain"}[scan.malignant]
    assert kinds == {"SEG", "SR", "RTSTRUCT"}
    assert outlined_bodies


# --- the mess ---------------------------------------------------------------------------------------------------------


def plain_id(text: str) -> str:
    """``Fall 007``, ``fall_7 `` and ``FALL 7`` are one."""
    return text.strip().lower().replace("_", " ").removeprefix("fall ").lstrip("0")


def test_table_of_the_mess_says_what_is_true(made):
    folder = made("mess")
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


def test_splits_of_the_mess_are_its_folders_and_hold_both_classes(made):
    folder = made("mess")
    labels: dict[str, set[bool]] = {}
    splits: dict[str, set[str]] = {}
    for scan in folder.expected.scans:
        assert scan.path.split("/")[0] == {"validation": "val"}.get(scan.split, scan.split)
        splits.setdefault(scan.patient, set()).add(scan.split)
        if scan.malignant is not None:
            labels.setdefault(scan.split, set()).add(scan.malignant)
    assert labels == {split: {True, False} for split in ("train", "validation", "test")}
    assert all(len(places) == 1 for places in splits.values())


def test_copies_and_broken_files_of_the_mess_are_what_they_say(made):
    folder = made("mess")
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
