"""No annotation file, however damaged, raises anything but the project's errors, in one line and without free text."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import QUIET
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from lesion_files import (
    AXIAL,
    ellipsoid,
    planar_group,
    region_in_space,
    region_on_image,
    write_fcsv,
    write_lidc_xml,
    write_markups,
    write_mask,
    write_report,
    write_rows,
    write_scan,
    write_segmentation,
    write_structure_set,
)

from pipeline.cases.case import Case
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import Annotations, ReadingOptions
from pipeline.cases.lesions.read import read_lesions
from pipeline.errors import CaseError, TableError

KINDS = ("seg", "fractional", "rtstruct", "sr", "markups", "fcsv", "lidc", "luna", "voxels", "parquet", "excel", "mask")
SUFFIX = {
    "markups": ".mrk.json",
    "fcsv": ".fcsv",
    "lidc": ".xml",
    "luna": ".csv",
    "voxels": ".csv",
    "parquet": ".parquet",
    "excel": ".xlsx",
    "mask": ".nii.gz",
}


@dataclass(frozen=True, repr=False)  # Hypothesis prints it with every failure
class Made:
    """Sound files of every kind, the image that they are of, and a folder."""

    sound: dict[str, bytes]
    images: ImageIndex
    root: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The bytes of a sound file of each kind, and the image at hand."""
    root = tmp_path_factory.mktemp("fuzz")
    scan = write_scan(root / "ct", AXIAL)
    small = ellipsoid(radii=(2, 2, 1.2))
    path = root / "file"
    write_segmentation(scan, path, [small])
    found = {"seg": path.read_bytes()}
    write_segmentation(scan, path, [small * 0.7], kind="FRACTIONAL")
    found["fractional"] = path.read_bytes()
    write_structure_set(scan, path)
    found["rtstruct"] = path.read_bytes()
    groups = [
        planar_group(scan, region_in_space(scan, "POINT", scan.center_mm * [-1, -1, 1]), diameter_mm=4),
        planar_group(scan, region_on_image(scan, "CIRCLE", np.array([(9.0, 9), (12, 9)]), 5)),
    ]
    write_report(scan, path, groups)
    found["sr"] = path.read_bytes()
    found["markups"] = write_markups(scan, path).read_bytes()
    found["fcsv"] = write_fcsv(scan, path).read_bytes()
    found["lidc"] = write_lidc_xml(scan, path, [small]).read_bytes()
    header = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    found["luna"] = write_rows(path, header, [scan.series, 1, 2, 3, 4]).read_bytes()
    voxels = ("case_id", "i", "j", "k", "index_base")
    found["voxels"] = write_rows(path, voxels, ["ct", 1, 2, 3, 0]).read_bytes()
    pq.write_table(pa.table({"case_id": ["ct"], "x": [1.5], "y": [2], "z": [3], "system": ["RAS"]}), path)
    found["parquet"] = path.read_bytes()
    book = openpyxl.Workbook()
    for row in (["case_id", "x", "y", "z", "system"], ["ct", 1, 2, 3, "RAS"]):
        book.active.append(row)
    book.save(root / "t.xlsx")
    found["excel"] = (root / "t.xlsx").read_bytes()
    found["mask"] = write_mask(scan, root / "m.nii.gz", small.astype(np.uint8)).read_bytes()
    return Made(found, ImageIndex([Case("ct", "ct", scan.folder)], root=root), root)


def judge(path: Path, images: ImageIndex, **options) -> None:
    try:
        found = read_lesions(path, images=images, options=ReadingOptions(**options))
    except (CaseError, TableError) as error:
        check_line(str(error))
        return
    assert isinstance(found, Annotations)
    for lesion in found.lesions:
        assert np.isfinite(lesion.center_mm).all()
        assert lesion.diameter_mm is None or lesion.diameter_mm >= 0
    for line in (*map(str, found.refused), *found.notes):
        check_line(line)


def check_line(line: str) -> None:
    assert "\n" not in line
    assert "CANARY" not in line
    assert len(line) < 1000


def test_every_sound_file_has_its_lesions(made):
    images, root = made.images, made.root
    for kind, data in made.sound.items():
        path = root / f"sound{SUFFIX.get(kind, '.dcm')}"
        path.write_bytes(data)
        assert read_lesions(path, images=images).lesions, kind


edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("blank"), st.floats(0, 1), st.integers(1, 64)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes) -> bytes:
    for kind, share, value in changes:
        place = int(share * max(len(data) - 1, 0))
        if kind == "flip" and data:
            data = data[:place] + bytes([data[place] ^ value]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "insert":
            data = data[:place] + bytes([value]) + data[place:]
        elif kind == "repeat":
            data = data[:place] + data[place : place + value] * 2 + data[place + value :]
        else:
            data = data[:place] + b"\0" * value + data[place + value :]
    return data


def fuzz_bytes(made, kind, examples, number=0):
    images, root = made.images, made.root
    path = root / f"fuzz{SUFFIX.get(kind, '.dcm')}"

    @seed(number)
    @settings(max_examples=examples, **QUIET)
    @given(edits)
    def run(changes):
        path.write_bytes(damaged(made.sound[kind], changes))
        judge(path, images)

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_raise_nothing_but_the_projects_errors(made, kind):
    fuzz_bytes(made, kind, 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_bytes_raise_nothing_but_the_projects_errors(made, kind):
    fuzz_bytes(made, kind, 400, 1)


numbers = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3), st.just("CANARY"))
values = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
markups = st.fixed_dictionaries(
    {"type": st.sampled_from(["Fiducial", "Line", "ROI", "Plane"]) | values},
    optional={
        "coordinateSystem": st.sampled_from(["LPS", "RAS", "0", 1]) | values,
        "coordinateUnits": st.sampled_from(["mm", ["mm", "UCUM", "mm"]]) | values,
        "controlPoints": values
        | st.lists(
            st.fixed_dictionaries(
                {}, optional={"position": st.lists(numbers, min_size=3, max_size=3) | values, "positionStatus": values}
            ),
            max_size=3,
        ),
        "center": st.lists(numbers, min_size=3, max_size=3) | values,
        "size": st.lists(numbers, min_size=3, max_size=3) | values,
        "orientation": st.lists(st.floats(-1, 1), min_size=9, max_size=9) | values,
    },
)


@settings(max_examples=150, **QUIET)
@given(content=st.fixed_dictionaries({"markups": st.lists(markups, max_size=3) | values}))
def test_markups_of_any_content_raise_nothing_but_the_projects_errors(made, content):
    images, root = made.images, made.root
    path = root / "any.mrk.json"
    path.write_text(json.dumps(content))
    judge(path, images)


cells = st.one_of(
    st.floats().map(str), st.integers().map(str), st.sampled_from(["", "LPS", "ras", "CANARY", "1", "ct", "1,5", "nan"])
)
headers = st.sampled_from([
    "case_id", "image", "x", "y", "z", "i", "j", "k", "system", "diameter_mm", "seriesuid", "coordX", "coordY",
    "coordZ", "class", "index_base", "center_x_mm", "center_y_mm", "center_z_mm", "patient", "",
])  # fmt: skip


@settings(max_examples=150, **QUIET)
@given(data=st.data(), delimiter=st.sampled_from([",", ";", "\t"]), system=st.sampled_from([None, "RAS", "LPS"]))
def test_tables_of_any_content_raise_nothing_but_the_projects_errors(made, data, delimiter, system):
    images, root = made.images, made.root
    header = data.draw(st.lists(headers, min_size=1, max_size=9))
    rows = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4))
    path = write_rows(root / "any.csv", header, *rows, delimiter=delimiter)
    judge(path, images, system=system, index_base=1)


@settings(max_examples=100, **QUIET)
@given(
    content=st.binary(max_size=400), suffix=st.sampled_from(["", ".dcm", ".csv", ".fcsv", ".xml", ".json", ".nii.gz"])
)
def test_any_bytes_at_all_raise_nothing_but_the_projects_errors(made, content, suffix):
    images, root = made.images, made.root
    path = root / f"bytes{suffix}"
    path.write_bytes(content)
    judge(path, images)


@pytest.mark.parametrize("content", [b"\xfe\xff", b"\xff\xfe\n\0", b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("suffix", [".csv", ".fcsv", ".json"])
def test_a_mark_and_no_text_is_an_empty_file(made, content, suffix):
    path = made.root / f"blank{suffix}"
    path.write_bytes(content)
    judge(path, made.images)


def test_containers_that_hold_annotations_are_refused(made):
    images, root = made.images, made.root
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("x.mrk.json", "{}")
    with pytest.raises(CaseError, match="a zip archive"):
        read_lesions(root / "a.zip", images=images)
