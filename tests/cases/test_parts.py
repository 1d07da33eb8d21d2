"""``image`` may end in ``#PART``, on disk and by URL: one series of a folder, one page or frame of a file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bucket import bucket_url
from dicom_writing import SERIES, SHAPE, ct_slice, phantom, save, write_series
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from volume_files import write_mhd, write_nhdr, write_npy

from pipeline.cases import cache
from pipeline.cases.case import Case, case_from_record, split_part
from pipeline.cases.inputs import read_inputs
from pipeline.cases.inspection import duplicates, inspect_case
from pipeline.cases.manifest import read_manifest
from pipeline.cases.prepare import prepare_case
from pipeline.cases.remote import local_copy
from pipeline.cases.signature import input_signature
from pipeline.cases.source_files import source_files
from pipeline.config.inputs import Intensity, Limits, Preprocessing
from pipeline.errors import CaseError
from pipeline.files import sha256_bytes
from pipeline.imaging.preprocess import ModelInput

LIMITS = Limits()
CODE = sha256_bytes(SERIES.encode())[:8]
OTHER = f"{SERIES}.2"
OTHER_CODE = sha256_bytes(OTHER.encode())[:8]
SLICES = Preprocessing(
    dimensions=2,
    region="image",
    size=(24, 20),
    spacing_mm=None,
    intensity=Intensity(scaling="range", lower=None, upper=None),
)
VOLUME = Preprocessing(region="image", size=(24, 20, 16), spacing_mm=(1.5, 1.25, 2.0))


def two_series(folder: Path) -> Path:
    def edit(image: Dataset, number: int) -> None:
        image.SeriesInstanceUID = OTHER
        image.PixelData = np.frombuffer(image.PixelData, "<u2")[::-1].tobytes()

    write_series(folder)
    for path in write_series(folder.parent / "other", edit).iterdir():
        path.rename(folder / f"{path.name}b")
    (folder.parent / "other").rmdir()
    return folder


def pages(path: Path, count: int = 3) -> list[np.ndarray]:
    values = [np.random.default_rng(number).integers(0, 255, (20, 24)).astype(np.uint8) for number in range(count)]
    first, *others = map(Pillow.fromarray, values)
    first.save(path, save_all=True, append_images=others)
    return values


def manifest(folder: Path, *images: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(["image", *images, ""]))
    return path


def prepared(case: Case, config: Preprocessing, *, modality: str = "CT", root: Path | None = None) -> ModelInput:
    outcome = prepare_case(case, config, modality=modality, root=root)
    assert not isinstance(outcome, CaseError), outcome
    return outcome


def test_manifest_names_series_and_pages(tmp_path: Path) -> None:
    two_series(tmp_path / "study")
    values = pages(tmp_path / "scan.tif")
    table = read_manifest(manifest(tmp_path, f"study#{CODE}", f"study#{OTHER}", "scan.tif#2", "scan.tif#3"))
    assert [case.path.name for case in table.cases] == ["study", "study", "scan.tif", "scan.tif"]
    assert [case.part for case in table.cases] == [CODE, OTHER, "2", "3"]
    assert [case.case_id for case in table.cases] == [case.image for case in table.cases]
    one, other = (prepared(case, VOLUME, root=table.root).voxels for case in table.cases[:2])
    expected = np.clip((phantom()[::-1, ::-1].astype(float) + 1000) / 1400, 0, 1)
    np.testing.assert_allclose(one[0], expected, atol=1e-5)
    assert np.abs(one - other).max() > 0.1
    for case, page in zip(table.cases[2:], values[1:], strict=True):
        found = prepared(case, SLICES, modality="other", root=table.root).voxels[0]
        page = page[::-1, ::-1].T.astype(float)
        np.testing.assert_allclose(found, (page - page.min()) / (page.max() - page.min()), atol=1e-6)


def test_what_has_the_whole_name_is_meant(tmp_path: Path) -> None:
    pages(tmp_path / "scan.tif")
    (tmp_path / "scan.tif#2").write_bytes(b"x")
    write_series(tmp_path / "a#1" / "s")
    cases = [case_from_record({"image": name}, row=2, root=tmp_path) for name in ("scan.tif#2", "scan.tif#1", "a#1/s")]
    assert [(case.path.name, case.part) for case in cases] == [("scan.tif#2", None), ("scan.tif", "1"), ("s", None)]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("a.tif#3", ("a.tif", "3")),
        ("a#b#3", ("a#b", "3")),
        ("a.tif#", ("a.tif#", None)),
        ("#3", ("#3", None)),
        ("a#b/c.tif", ("a#b/c.tif", None)),
        ("a.tif", ("a.tif", None)),
        ("there#3", ("there#3", None)),
        ("nothing#3", ("nothing#3", None)),
    ],
)
def test_part_is_split_off_where_the_rest_exists(image: str, expected: tuple[str, str | None]) -> None:
    known = {"a.tif", "a#b", "a#b/c.tif", "there#3", "there", "a"}
    assert split_part(image, known.__contains__) == expected


def test_missing_scan_with_a_mark_is_named_as_it_was_given(tmp_path: Path) -> None:
    case = case_from_record({"image": "no#1a2b3c4d"}, row=2, root=tmp_path)
    finding = inspect_case(case, root=tmp_path, limits=LIMITS)
    assert finding.error is not None
    assert "no#1a2b3c4d: E_NOT_FOUND" in str(finding.error)


def test_command_line_names_one_part(tmp_path: Path) -> None:
    two_series(tmp_path / "study")
    pages(tmp_path / "scan.tif")
    for source, part in ((tmp_path / f"study#{CODE}", CODE), (tmp_path / "scan.tif#2", "2")):
        inputs = read_inputs(str(source))
        (case,) = inputs.cases()
        assert (case.case_id, case.image, case.part, inputs.total) == (source.name, str(source), part, 1)
        assert inspect_case(case, root=None, limits=LIMITS).error is None
    assert len(list(read_inputs(tmp_path / "study").cases())) == 2


def test_case_ids_of_a_search_name_the_series_in_a_manifest(tmp_path: Path) -> None:
    two_series(tmp_path / "study")
    found = list(read_inputs(tmp_path).cases())
    table = read_manifest(manifest(tmp_path, *(case.case_id for case in found)))
    for case, named in zip(found, table.cases, strict=True):
        one, other = prepared(case, VOLUME), prepared(named, VOLUME, root=table.root)
        np.testing.assert_array_equal(one.voxels, other.voxels)
        assert one.scan.digest == other.scan.digest


def test_pages_are_no_duplicates_and_the_same_page_is(tmp_path: Path) -> None:
    pages(tmp_path / "scan.tif")
    table = read_manifest(manifest(tmp_path, "scan.tif#1", "scan.tif#2", "scan.tif#01"))
    findings = duplicates([inspect_case(case, root=table.root, limits=LIMITS) for case in table.cases])
    assert [[str(warning.code) for warning in finding.warnings] for finding in findings] == [
        [],
        [],
        ["W_DUPLICATE_FILE"],
    ]


def test_part_is_in_signature_and_place_of_the_cache(tmp_path: Path) -> None:
    pages(tmp_path / "scan.tif")
    base = case_from_record({"image": "scan.tif#1"}, row=2, root=tmp_path)
    cases = [base, replace(base, part="2"), replace(base, part=None)]
    assert len({input_signature(case) for case in cases}) == 3
    stored = cache.StoredInputs(cache.InputCache(folder=tmp_path / "cache"))
    assert len({stored.place(case, SLICES, modality="other") for case in cases}) == 3


@pytest.mark.parametrize("kind", ["mhd", "nhdr", "npy", "folder"])
def test_changed_side_file_is_noticed(tmp_path: Path, kind: str) -> None:
    """Also a slice in a subfolder: only a folder's own files were looked at."""
    if kind == "mhd":
        path, changed = write_mhd(tmp_path / "a.mhd"), tmp_path / "scan.raw"
    elif kind == "nhdr":
        path, changed = write_nhdr(tmp_path / "a.nhdr"), tmp_path / "scan.raw"
    elif kind == "npy":
        path, changed = write_npy(tmp_path / "a.npy"), tmp_path / "a.json"
    else:
        path, changed = tmp_path / "study", write_series(tmp_path / "study" / "deep") / "IM003"
    case = Case("a", path.name, path)
    assert changed in source_files(case)
    before, look = input_signature(case), cache.look(case)
    changed.write_bytes(changed.read_bytes() + b" ")
    os.utime(changed, ns=(1, 1))
    assert input_signature(case) != before
    assert cache.look(case) != look


# By URL


def remote(tmp_path: Path, name: str = "") -> str:
    return bucket_url(tmp_path / name if name else tmp_path)


@pytest.mark.parametrize("kind", ["mhd", "nhdr", "npy", "pair"])
def test_side_files_travel_with_their_scan(tmp_path: Path, kind: str) -> None:
    """Half of a pair arrived alone and was refused."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    if kind == "pair":
        import nibabel as nib

        nib.save(nib.Nifti1Pair(phantom(), np.diag([1.5, 1.25, 2, 1])), folder / "a.hdr")
        name = "a.hdr"
    else:
        writers = {"mhd": write_mhd, "nhdr": write_nhdr, "npy": write_npy}
        name = writers[kind](folder / f"a.{kind}", **({} if kind == "npy" else {"name": "a.raw"})).name
    inputs = read_inputs(remote(folder))
    (case,) = inputs.cases()
    assert case.case_id == name
    assert inputs.skipped == {}
    with local_copy(case) as local:
        finding = inspect_case(local, root=None, limits=LIMITS)
    assert finding.error is None, finding.error


def test_part_behind_a_url_is_the_same_part(tmp_path: Path) -> None:
    two_series(tmp_path / "study")
    values = pages(tmp_path / "scan.tif")
    for name, part in ((f"study#{CODE}", CODE), ("scan.tif#2", "2")):
        (case,) = read_inputs(remote(tmp_path, name)).cases()
        with local_copy(case) as local:
            assert local.part == part
            assert inspect_case(local, root=None, limits=LIMITS).error is None
        whole = (case.url or "").partition("#")[0]
        assert len({input_signature(replace(case, url=url)) for url in (whole, f"{whole}#1", f"{whole}#2")}) == 3
    table = manifest(tmp_path, f"study#{OTHER_CODE}", "scan.tif#3", "scan.tif#9")
    cases = list(read_inputs(bucket_url(table)).cases())
    found = prepared(cases[1], SLICES, modality="other").voxels[0]
    page = values[2][::-1, ::-1].T.astype(float)
    np.testing.assert_allclose(found, (page - page.min()) / (page.max() - page.min()), atol=1e-6)
    assert prepared(cases[0], VOLUME).voxels.shape == (1, *SHAPE)
    outcome = prepare_case(cases[2], SLICES, modality="other", root=None)
    assert isinstance(outcome, CaseError)
    assert "pages #1 to #3" in str(outcome)


def test_frame_of_a_cine_is_scored_by_number(tmp_path: Path) -> None:
    image = ct_slice(0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(image, name)
    image.Modality, image.NumberOfFrames = "US", SHAPE[2]
    image.PixelData = (phantom().transpose(2, 1, 0).astype(int) + 1024).astype("<u2").tobytes()
    save(image, tmp_path / "cine.dcm")
    table = read_manifest(manifest(tmp_path, "cine.dcm#12", "cine.dcm"))
    found = prepared(table.cases[0], SLICES, modality="US", root=table.root).voxels[0]
    frame = phantom()[::-1, ::-1, 11].astype(float)
    np.testing.assert_allclose(found, (frame - frame.min()) / (frame.max() - frame.min()), atol=1e-6)
    outcome = prepare_case(table.cases[1], SLICES, modality="US", root=table.root)
    assert isinstance(outcome, CaseError)
    assert "one of #1 to #16, as image: cine.dcm#1" in str(outcome)
