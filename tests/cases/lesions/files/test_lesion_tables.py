"""Tables of centres: columns by their names, systems and index bases never guessed."""

from __future__ import annotations

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lesion_files import OBLIQUE, write_rows, write_scan

from pipeline.cases.case import Case
from pipeline.cases.lesions.files.tables import read_table_lesions
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import ImageReference, ReadingOptions
from pipeline.errors import CaseError, Code, TableError

NONE = ImageIndex()


def read(path, **options):
    return read_table_lesions(path, NONE, ReadingOptions(**options))


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y", "z"), ("X", "Y", "Z"), ("center_x_mm", "center_y_mm", "center_z_mm"), ("x_mm", "y_mm", "z_mm"),
        ("coordX", "coordY", "coordZ"), ("Lesion Center X", "Lesion Center Y", "Lesion Center Z"),
        ("x_coord", "y_coord", "z_coord"), ("pos-x", "pos-y", "pos-z"), ("centroid.x", "centroid.y", "centroid.z"),
        ("world_x", "world_y", "world_z"),
    ],
)  # fmt: skip
def test_centre_columns_are_known_by_their_names(tmp_path, names):
    path = write_rows(tmp_path / "t.csv", ("case_id", *names), ["a", 1, 2, 3])
    (lesion,) = read(path, system="LPS").lesions
    assert lesion.center_mm == (-1, -2, 3)
    assert lesion.reference == ImageReference(case_id="a")
    assert lesion.name == "row 2"


@pytest.mark.parametrize(("cell", "sign"), [("RAS", 1), ("ras", 1), (" Lps ", -1), ("LPS", -1)])
@pytest.mark.parametrize("column", ["coordinate_system", "System", "CoordinateSystem"])
def test_the_system_is_a_column_in_any_letter_case(tmp_path, cell, sign, column):
    path = write_rows(tmp_path / "t.csv", ("image", "x", "y", "z", column), ["a.nii", 1, 2, 3, cell])
    assert read(path, system="RAS").lesions[0].center_mm == (sign, 2 * sign, 3)  # the cell stands before the option


def test_a_system_that_is_not_said_is_never_guessed(tmp_path):
    path = write_rows(tmp_path / "t.csv", ("image", "x", "y", "z"), ["a.nii", 1, 2, 3])
    (refused,) = read(path).refused
    assert refused.error.code is Code.E_CENTER
    assert "say it with --system" in refused.error.reason
    path = write_rows(tmp_path / "t.csv", ("image", "x", "y", "z", "system"), ["a.nii", 1, 2, 3, "CANARY"])
    (refused,) = read(path, system="RAS").refused
    assert "neither RAS nor LPS" in refused.error.reason
    assert "CANARY" not in str(refused)


def test_luna16_is_lps_by_its_definition_and_a_like_table_is_not(tmp_path):
    header = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    found = read(write_rows(tmp_path / "annotations.csv", header, ["1.2.3", -128.6994, -175.3192, -298.3875, 5.6515]))
    (lesion,) = found.lesions
    assert (lesion.format, lesion.center_mm, lesion.diameter_mm) == ("luna16", (128.699, 175.319, -298.388), 5.652)
    assert lesion.reference == ImageReference(series="1.2.3")
    assert read(write_rows(tmp_path / "t.csv", ("seriesuid", "x", "y", "z"), ["1.2.3", 1, 2, 3])).refused


def test_candidates_of_luna16_that_are_no_nodules_are_left_out(tmp_path):
    header = ("seriesuid", "coordX", "coordY", "coordZ", "class")
    found = read(
        write_rows(tmp_path / "c.csv", header, ["1.2", 1, 2, 3, 0], ["1.2", 4, 5, 6, 1], ["1.2", 7, 8, 9, "0.0"])
    )
    assert [lesion.center_mm for lesion in found.lesions] == [(-4, -5, 6)]
    assert "left out 2 candidates of class 0" in found.notes[0]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_where_a_comma_can_be_nothing_else(tmp_path, delimiter):
    header = ("Fall-Nr.", "case_id", "x", "y", "z", "System", "Durchmesser_mm")
    path = write_rows(tmp_path / "t.csv", header, ["1", "0012", "1,5", "-2,25", "3", "lps", "8,5"], delimiter=delimiter)
    (lesion,) = read(path).lesions
    assert (lesion.center_mm, lesion.diameter_mm) == ((-1.5, 2.25, 3), 8.5)
    assert lesion.reference.case_id == "0012"


def test_utf_16_and_parquet_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("case_id,x,y,z\na,1,2,3\n".encode("utf-16"))
    assert read(path, system="RAS").lesions[0].center_mm == (1, 2, 3)
    table = pa.table({"case_id": ["007", "b"], "x": [1.5, None], "y": [2.0, None], "z": [3.0, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet", system="RAS")
    assert [(lesion.reference.case_id, lesion.center_mm) for lesion in found.lesions] == [("007", (1.5, 2, 3))]


def test_a_hospitals_export_with_a_title_and_umlauts_is_read(tmp_path):
    rows = "Läsionen 2026;;;;\nFall;case_id;x;y;z;System\n1;Müller-1;1,5;2;3;lps\n"
    (tmp_path / "t.csv").write_bytes(rows.encode("cp1252"))
    found = read(tmp_path / "t.csv")
    assert [(one.reference.case_id, one.center_mm, one.name) for one in found.lesions] == [
        ("Müller-1", (-1.5, -2, 3), "row 3")
    ]
    assert "read as Windows-1252; cells separated by semicolons" in found.notes[0]


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel_is_read_and_several_tables_in_it_are_refused_without_their_names(tmp_path):
    rows = [["Läsionen"], ["case_id", "x", "y", "z", "System", "diameter_mm"], ["007", 1.5, 2, 3, "RAS", "8,5"], [None]]
    path = workbook(tmp_path / "t.xlsx", CANARY=rows, Legende=[["x"], ["rechts"]])
    (lesion,) = read(path).lesions
    assert (lesion.reference.case_id, lesion.center_mm, lesion.diameter_mm) == ("007", (1.5, 2, 3), 8.5)
    assert "CANARY" not in str(read(path).notes)
    with pytest.raises(TableError, match="has several sheets with tables") as caught:
        read(workbook(tmp_path / "t.xlsx", CANARY=rows, CANARY2=rows))
    assert "CANARY" not in str(caught.value)


def test_rows_without_a_centre_are_left_out_and_half_a_centre_is_refused(tmp_path):
    path = write_rows(
        tmp_path / "t.csv", ("case_id", "x", "y", "z"), ["a", "", "", ""], ["b", 1, "", 3], ["c", 1, 2, 3]
    )
    found = read(path, system="RAS")
    assert [lesion.reference.case_id for lesion in found.lesions] == ["c"]
    assert "left out 1 row without a centre" in found.notes[0]
    (refused,) = found.refused
    assert (refused.name, refused.error.code, refused.reference.case_id) == ("row 3", Code.E_CENTER, "b")


@pytest.mark.parametrize("cell", ["CANARY^ANNE", "nan", "inf", "1e9", "1_0", "0x10", "1.2.3", "--"])
def test_what_is_no_number_is_refused_with_its_row_and_not_printed(tmp_path, cell):
    path = write_rows(tmp_path / "t.csv", ("case_id", "x", "y", "z"), ["a", 1, 2, cell])
    (refused,) = read(path, system="RAS").refused
    assert refused.error.code is Code.E_CENTER
    assert refused.name == "row 2"
    assert "CANARY" not in str(refused)


@pytest.mark.parametrize(
    ("cell", "fine"), [("8.5", True), ("", True), ("0", False), ("-3", False), ("1e9", False), ("x", False)]
)
def test_diameters_are_above_zero_or_blank(tmp_path, cell, fine):
    path = write_rows(tmp_path / "t.csv", ("case_id", "x", "y", "z", "diameter_mm"), ["a", 1, 2, 3, cell])
    found = read(path, system="RAS")
    assert bool(found.lesions) == fine
    if fine:
        assert found.lesions[0].diameter_mm == (float(cell) if cell else None)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (("case_id", "a", "b", "c"), "none of 4 columns hold lesion centres"),
        (("case_id", "x", "y"), "none of 3 columns"),
        (
            ("case_id", "x", "y", "z", "center_x_mm", "center_y_mm", "center_z_mm"),
            "both could begin the lesion's centre",
        ),
        (("case_id", "Case-ID", "x", "y", "z"), "2 columns could be the case_id"),
    ],
)
def test_tables_without_one_certain_centre_are_refused(tmp_path, header, says):
    path = write_rows(tmp_path / "t.csv", header, ["1"] * len(header))
    with pytest.raises(TableError, match=says) as caught:
        read(path)
    assert caught.value.code is Code.E_LABEL_COLUMNS


@pytest.mark.parametrize(
    ("content", "error", "code"),
    [
        (b"case_id,x,y,z\na,1,2\n", TableError, Code.E_LABEL_COLUMNS),
        (b'case_id,x,y,z\n"a,1,2,3\n', TableError, Code.E_FORMAT),
        (b"case_id,x,y,z\n" + b"a" * 200_000 + b",1,2,3\n", TableError, Code.E_FORMAT),
        (b"case_id,x,y,z\na,1,5,2,3\n", TableError, Code.E_LABEL_COLUMNS),  # 1,5 without quotes moves the rest
        (b"case_id,x,y,z\na\0,1,2,3\n", TableError, Code.E_ENCODING),
        (b"\xff\xfe\n\0", TableError, Code.E_EMPTY_FILE),
        (b"PK\x03\x04 and no more", TableError, Code.E_FORMAT),
        (b"PAR1 and no more", TableError, Code.E_FORMAT),
        (b"", CaseError, Code.E_EMPTY_FILE),
    ],
)
def test_damaged_tables_are_refused_in_one_line(tmp_path, content, error, code):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(error, match=str(code)) as caught:
        read(tmp_path / "t.csv", system="RAS")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "ct", OBLIQUE)


@pytest.mark.parametrize(
    "names", [("i", "j", "k"), ("voxel_x", "voxel_y", "voxel_z"), ("index i", "index j", "index k")]
)
@pytest.mark.parametrize("base", [0, 1])
def test_voxel_indices_go_through_the_images_affine_from_the_declared_base(tmp_path, scan, names, base):
    images = ImageIndex([Case("ct", "ct", scan.folder), Case("other", "other", tmp_path)])
    path = write_rows(tmp_path / "v.csv", ("case_id", *names), ["ct", 10 + base, 20 + base, 5.5 + base])
    (lesion,) = read_table_lesions(path, images, ReadingOptions(index_base=base)).lesions
    assert lesion.center_mm == pytest.approx(scan.affine[:3] @ [10, 20, 5.5, 1], abs=1e-3)
    assert lesion.format == "voxel-table"


def test_the_base_of_voxel_indices_is_never_guessed(tmp_path, scan):
    images = ImageIndex([Case("ct", "ct", scan.folder)])
    path = write_rows(tmp_path / "v.csv", ("case_id", "i", "j", "k"), ["ct", 1, 2, 3])
    (refused,) = read_table_lesions(path, images).refused
    assert refused.error.code is Code.E_CENTER
    assert "--index-base 0 or 1" in refused.error.reason
    path = write_rows(tmp_path / "v.csv", ("case_id", "i", "j", "k", "index_base"), ["ct", 1, 2, 3, "2"])
    assert read_table_lesions(path, images, ReadingOptions(index_base=1)).refused


def test_voxel_indices_of_an_image_that_is_not_at_hand_are_refused(tmp_path, scan):
    images = ImageIndex([Case("ct", "ct", scan.folder)])
    path = write_rows(tmp_path / "v.csv", ("case_id", "i", "j", "k", "index_base"), ["x", 1, 2, 3, 1])
    (refused,) = read_table_lesions(path, images).refused
    assert refused.error.code is Code.E_CASE_ID
    path = write_rows(tmp_path / "v.csv", ("i", "j", "k", "index_base"), [1, 2, 3, 1])  # of the only image
    assert len(read_table_lesions(path, images).lesions) == 1


def test_millimetres_stand_before_voxel_indices(tmp_path):
    path = write_rows(tmp_path / "t.csv", ("case_id", "i", "j", "k", "x", "y", "z"), ["a", 9, 9, 9, 1, 2, 3])
    (lesion,) = read(path, system="RAS").lesions
    assert (lesion.center_mm, lesion.format) == ((1, 2, 3), "table")
    assert np.isfinite(lesion.center_mm).all()
