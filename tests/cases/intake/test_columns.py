"""Columns of foreign tables: guessed by name and content, shown, corrected, and refused where two fit alike."""

import pytest

from pipeline.cases.intake.choose_table import choose_table
from pipeline.cases.intake.columns import guess_columns
from pipeline.cases.intake.joining import ScanNames
from pipeline.cases.tables.table import Table
from pipeline.errors import TableError, UsageError

SCANS = [ScanNames(f"CT/Pat_{number:03d}_Thorax.nii.gz") for number in range(1, 5)]


def table_of(header, *rows, path="t.csv"):
    from pathlib import Path

    return Table(Path(path), tuple(header), tuple(map(tuple, rows)), tuple(range(2, len(rows) + 2)), "digest")


HOSPITAL = table_of(
    ["Fall-Nr.", "Pat.-ID", "Geschlecht", "Alter", "Histologie", "Bemerkung"],
    ["1", "A7", "m", "61", "gutartig", "o.B."],
    ["2", "A7", "m", "61", "maligne", "siehe Fall 1"],
    ["3", "B2", "w", "47", "gutartig", ""],
    ["4", "C9", "w", "58", "maligne", ""],
)


def test_a_hospitals_columns_are_found_by_name_and_content():
    columns = guess_columns(HOSPITAL, SCANS)
    assert (columns.case, columns.patient, columns.label) == ("Fall-Nr.", "Pat.-ID", "Histologie")
    assert columns.join.scans_of == ((0,), (1,), (2,), (3,))
    lines = "\n".join(columns.describe(HOSPITAL))
    assert "id: column 'Fall-Nr.', 4 of 4 rows have a scan" in lines
    assert "patient: column 'Pat.-ID', 3 patients" in lines
    assert "label: column 'Histologie', gutartig (2), maligne (2)" in lines


def test_options_win_over_guesses():
    columns = guess_columns(HOSPITAL, SCANS, given={"label": "Geschlecht", "patient": "Fall-Nr."})
    assert (columns.label, columns.patient) == ("Geschlecht", "Fall-Nr.")
    with pytest.raises(UsageError, match=r"--label: t\.csv has no column 'Dignität'; it has 'Fall-Nr\.'"):
        guess_columns(HOSPITAL, SCANS, given={"label": "Dignität"})


def test_sex_is_no_label_and_free_text_neither():
    table = table_of(["scan", "Geschlecht", "Bemerkung"], *[[str(n), "mw"[n % 2], f"Text {n}"] for n in range(1, 5)])
    assert guess_columns(table, SCANS).label is None
    group = table_of(["scan", "Group"], *[[str(n), "mw"[n % 2]] for n in range(1, 5)])
    assert guess_columns(group, SCANS).label is None


def test_two_columns_alike_are_not_guessed_between():
    table = table_of(["id", "Diagnosis", "Pathology"], *[[str(n), "benign", "malignant"][:3] for n in range(1, 5)])
    mixed = table_of(
        ["id", "Diagnosis", "Pathology"],
        ["1", "benign", "benign"],
        ["2", "malignant", "malignant"],
        ["3", "benign", "malignant"],
        ["4", "malignant", "benign"],
    )
    assert guess_columns(table, SCANS).label is None  # one word each
    with pytest.raises(UsageError, match="'Diagnosis', 'Pathology' could all be the label; name it: --label"):
        guess_columns(mixed, SCANS)


def test_a_table_of_other_scans_is_refused_with_what_was_expected():
    table = table_of(["id", "label"], ["x", "0"], ["y", "1"])
    with pytest.raises(UsageError, match=r"no column names the scans: expected cells like 'CT/Pat_001_Thorax.nii.gz'"):
        guess_columns(table, SCANS)


@pytest.mark.parametrize(
    ("header", "center", "system"),
    [
        (["id", "x", "y", "z", "System"], ("x", "y", "z"), "System"),
        (["id", "coordX", "coordY", "coordZ", "note"], ("coordX", "coordY", "coordZ"), "LPS"),
        (["id", "R", "A", "S", "note"], ("R", "A", "S"), "RAS"),
        (["id", "L", "P", "S", "note"], ("L", "P", "S"), "LPS"),
        (["id", "X mm", "Y mm", "Z mm", "note"], ("X mm", "Y mm", "Z mm"), None),
    ],
)
def test_lesion_centres_and_their_system(header, center, system):
    columns = guess_columns(table_of(header, *[[str(n), "1.5", "2", "-3", "lps"] for n in range(1, 5)]), SCANS)
    assert (columns.center, columns.system) == (center, system)


def test_ids_that_several_scans_have_are_patients():
    scans = [ScanNames(f"{patient}/{view}.dcm") for patient in ("P1", "P2") for view in ("LCC", "RCC")]
    columns = guess_columns(table_of(["key", "pathology"], ["P1", "BENIGN"], ["P2", "MALIGNANT"]), scans)
    assert columns.patient == "key"
    assert columns.join.scans_of == ((0, 1), (2, 3))


def test_of_several_tables_the_one_with_labels_of_the_most_scans():
    legend = table_of(["code", "meaning"], ["0", "benign"], ["1", "malignant"], path="legend.csv")
    assert choose_table(SCANS, [legend, HOSPITAL], SCANS) is HOSPITAL
    assert choose_table(SCANS, [legend], SCANS) is None
    with pytest.raises(
        TableError, match=r"tables t\.csv, t\.csv speak of as many scans; join them into one, or name one: --table"
    ):
        choose_table("folder", [HOSPITAL, HOSPITAL], SCANS)


def test_columns_of_words_are_no_centre():
    table = table_of(["id", "x", "y", "z", "system"], *[[str(n), "left", "2", "3", "RAS"] for n in range(1, 5)])
    assert guess_columns(table, SCANS).center is None


@pytest.mark.parametrize(("cell", "column"), [("12.5", "Size"), ("172", None)])
def test_a_size_is_a_lesions_only_where_no_person_is_so_tall(cell, column):
    table = table_of(["id", "Size"], *[[str(n), cell] for n in range(1, 5)])
    assert guess_columns(table, SCANS).diameter == column


def test_of_columns_that_name_the_same_scans_the_first_is_the_id():
    table = table_of(["Fall", "Nummer"], *[[str(n), str(5 - n)] for n in range(1, 5)])
    assert guess_columns(table, SCANS).case == "Fall"


def test_numbers_in_doubt_are_refused_with_the_way_out():
    scans = [ScanNames(f"a{(7 * n) % 29}_b{n}.nii") for n in range(1, 29)]
    table = table_of(["nr", "diagnosis"], *[[str(n), "benign" if n % 2 else "malignant"] for n in range(1, 29)])
    with pytest.raises(UsageError, match=r"column 'nr' holds numbers that stand at several places.*--image COLUMN"):
        guess_columns(table, scans)
    files = table_of(["nr", "file"], *[[str(n), scan.image] for n, scan in enumerate(scans, start=1)])
    assert guess_columns(files, scans).case == "file"


def test_of_columns_that_name_all_scans_the_most_exact_is_the_id():
    scans = [ScanNames(f"P{n // 2}/{n}.nii") for n in range(8)]
    table = table_of(["patient_id", "image"], *[[f"P{n // 2}", f"P{n // 2}/{n}.nii"] for n in range(8)])
    columns = guess_columns(table, scans)
    assert (columns.case, columns.patient) == ("image", "patient_id")


def test_a_second_table_that_speaks_of_other_scans_is_not_passed_over():
    scans = [ScanNames(f"{n}.nii") for n in range(6)]
    train, test = (
        table_of(["file", "diagnosis"], *[[f"{n}.nii", "benign" if n % 2 else "malignant"] for n in part], path=path)
        for path, part in (("train.csv", range(4)), ("test.csv", range(4, 6)))
    )
    with pytest.raises(TableError, match=r"test\.csv speaks of 2 scans that train\.csv does not; join them into one"):
        choose_table("folder", [test, train], scans)
