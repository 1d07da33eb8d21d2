"""Tables in the forms people keep them: the same cells from every one of them, and one clear line for the rest."""

import csv
import io
import zipfile
from datetime import date, datetime

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from pipeline.cases.tables.table import read_table, with_decimal_points
from pipeline.errors import Code, TableError

HEADER = ["Fall-Nr.", "Größe", "Befund"]
ROWS = [["007", "8,5", "gutartig; klein"], ["012", "12,0", 'sagt "maligne"'], ["013", "", "a, b"]]


def write_text(path, rows, *, delimiter=",", encoding="utf-8"):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def write_book(path, sheets):
    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_dialect_gives_the_same_cells(tmp_path, delimiter, encoding):
    path = write_text(tmp_path / "t.csv", [HEADER, *ROWS], delimiter=delimiter, encoding=encoding)
    table = read_table(path)
    assert list(table.header) == HEADER
    assert [list(row) for row in table.rows] == ROWS


def test_other_encodings_are_refused_or_read_as_windows_1252_and_said(tmp_path):
    path = write_text(tmp_path / "t.csv", [HEADER, *ROWS], delimiter=";", encoding="cp1252")
    with pytest.raises(TableError, match="not UTF-8; save the table as 'CSV UTF-8'"):
        read_table(path)
    table = read_table(path, guess_encoding=True)
    assert list(table.header) == HEADER
    assert "read as Windows-1252" in table.notes


def test_excel_gives_what_a_person_would_type(tmp_path):
    book = Workbook()
    sheet = book.active
    sheet.append(["id", "number", "share", "day", "moment", "yes", "text", "error"])
    sheet.append([7, 1000, 8.25, date(2024, 3, 1), datetime(2024, 3, 1, 14, 30), True, " x ", "#N/A"])
    sheet["A2"].number_format = "000"
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.rows == (("007", "1000", "8.25", "2024-03-01", "2024-03-01 14:30:00", "true", "x", ""),)
    assert "1 cells with an Excel error are taken as blank" in table.notes


def test_the_only_sheet_with_a_table_is_taken_and_named(tmp_path):
    path = write_book(tmp_path / "t.xlsx", {"Legende": [["0"], ["1"]], "Daten": [HEADER, *ROWS], "leer": []})
    table = read_table(path)
    assert list(table.header) == HEADER
    assert "sheet 'Daten'" in table.notes
    assert read_table(path, sheet="Legende").header == ("0",)


def test_several_sheets_with_tables_are_not_guessed_between(tmp_path):
    path = write_book(tmp_path / "t.xlsx", {"A": [HEADER, *ROWS], "B": [HEADER, *ROWS]})
    with pytest.raises(TableError, match=r"2 sheets with tables \('A', 'B'\); name one: --sheet"):
        read_table(path)
    with pytest.raises(TableError, match="has no sheet 'C'; it has 'A', 'B'"):
        read_table(path, sheet="C")


@pytest.mark.parametrize("form", ["xlsx", "csv"])
def test_title_lines_blank_columns_and_nameless_columns(tmp_path, form):
    rows = [
        ["Export vom 01.03.2024", "", "", ""],
        ["", "", "", ""],
        ["Fall", "", "Befund", ""],
        ["007", "x", "gut", ""],
        ["", "", "", ""],
        ["008", "y", "schlecht", ""],
    ]
    path = tmp_path / f"t.{form}"
    if form == "xlsx":
        write_book(path, {"s": rows})
    else:
        write_text(path, rows, delimiter=";")
    table = read_table(path, find_header=True)
    assert table.header == ("Fall", "column 2", "Befund")
    assert table.rows == (("007", "x", "gut"), ("008", "y", "schlecht"))
    assert table.row_numbers == (4, 6)


def test_excels_line_that_names_the_separator(tmp_path):
    (tmp_path / "t.csv").write_text("sep=;\na;b\n1,5;2\n")
    table = read_table(tmp_path / "t.csv")
    assert table.rows == (("1,5", "2"),)
    assert table.row_numbers == (3,)


@pytest.mark.parametrize("content", [b"\xfe\xff", b"\xff\xfe\n\0", b"\xef\xbb\xbf \n", b";;\n;;\n"])
@pytest.mark.parametrize("find_header", [False, True])
def test_a_table_of_blanks_is_refused(tmp_path, content, find_header):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError, match="E_EMPTY_FILE"):
        read_table(tmp_path / "t.csv", find_header=find_header)


def test_parquet_is_text_too(tmp_path):
    pd.DataFrame({"id": ["007", "8"], "n": [1.5, None]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows == (("007", "1.5"), ("8", ""))


@pytest.mark.parametrize(
    ("cells", "delimiter", "expected"),
    [
        (["8,5", "12", ""], ",", ["8.5", "12", ""]),
        (["1.234,5", "-2,0"], ";", ["1234.5", "-2.0"]),
        (["1,234", "2,345"], ",", ["1,234", "2,345"]),  # a thousand, or one and a bit: nobody can say
        (["1,234", "2,345"], ";", ["1.234", "2.345"]),
        (["8,5", "unknown"], ";", ["8,5", "unknown"]),
        (["1,2,3", "8,5"], ";", ["1,2,3", "8,5"]),
    ],
)
def test_decimal_commas_where_a_column_leaves_no_other_reading(tmp_path, cells, delimiter, expected):
    path = write_text(tmp_path / "t.csv", [["id", "n"], *(["a", cell] for cell in cells)], delimiter=delimiter)
    assert with_decimal_points(read_table(path)).column("n") == expected


def test_ids_keep_their_commas(tmp_path):
    path = write_text(tmp_path / "t.csv", [["id", "n"], ["8,5", "8,5"]], delimiter=";")
    assert with_decimal_points(read_table(path), except_columns=["id"]).rows == (("8,5", "8.5"),)


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"\xd0\xcf\x11\xe0" + bytes(600), Code.E_FORMAT, r"an old Excel file \(\.xls\).*save it as \.xlsx"),
        (b"%PDF-1.7", Code.E_FORMAT, "a PDF"),
        (b"PK\x03\x04broken", Code.E_FORMAT, "not a readable Excel workbook"),
        (b"\xff\xfea", Code.E_ENCODING, "begins as UTF-16"),
        (b'a,b\n"x,1\n', Code.E_FORMAT, "close its quotes"),
        (b"a,b\n1,2,3\n", Code.E_LABEL_COLUMNS, "line 2 has 3 cells, the header has 2"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, data, code, says):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(TableError, match=says) as caught:
        read_table(path)
    assert caught.value.code == code


def test_a_zip_that_is_no_workbook_and_one_that_unpacks_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.xlsx", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(TableError, match="no Excel workbook"):
        read_table(tmp_path / "z.xlsx")
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(501_000_000))
    with pytest.raises(TableError, match="unpacks to over"):
        read_table(tmp_path / "bomb.xlsx")


@given(data=st.binary(max_size=400))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_table_or_a_refusal(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    for find_header in (False, True):
        try:
            table = read_table(path, guess_encoding=find_header, find_header=find_header)
        except TableError:
            continue
        assert all(len(row) == len(table.header) for row in table.rows)


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs", "Cc"]), max_size=8)


@given(rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cells_survive_writing_and_reading(tmp_path, rows):
    path = write_text(tmp_path / "t.csv", [["a", "b", "c"], *rows], delimiter=";")
    kept = [tuple(row) for row in rows if any(cell.strip() for cell in row)]
    assert list(read_table(path).rows) == kept
