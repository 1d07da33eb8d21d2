"""What table rows and folder names say of scans: labels, patients, splits, sides, lesions; and what is not copied."""

from dataclasses import replace

import pytest
from made_scans import scan
from test_columns import table_of

from pipeline.cases.intake.columns import guess_columns
from pipeline.cases.intake.folder_words import folder_labels, folder_splits
from pipeline.cases.intake.pseudonyms import patient_salt, pseudonym
from pipeline.cases.intake.rows import rows_from_folders, rows_from_table
from pipeline.cases.label_words import LabelWords
from pipeline.errors import UsageError

GERMAN = LabelWords(("maligne",))


def rows_of(scans, table, words=GERMAN, **more):
    columns = guess_columns(table, [each.names for each in scans])
    return rows_from_table(scans, table, columns, words, **more)


def test_labels_of_folders_in_words_that_need_no_question():
    images = ["data/benign/1.png", "data/Malignant cases/2.png", "data/normal/3.png", "4.png"]
    found = folder_labels(images, LabelWords())
    assert found.labels == (0, 1, None, None)
    assert found.unlabelled == {"normal": 1, "(no folder)": 1}


def test_labels_of_folders_in_other_words_are_asked_for():
    images = ["cancer/1.png", "healthy/2.png", "cyst/3.png"]
    assert folder_labels(images, LabelWords()) is None
    with pytest.raises(UsageError, match="beside it there are the folders 'cyst', 'healthy'"):
        folder_labels(images, LabelWords(("cancer",)))
    assert folder_labels(images, LabelWords(("cancer",), ("healthy",))).labels == (1, 0, None)
    assert folder_labels(images[:2], LabelWords(("cancer",))).labels == (1, 0)


@pytest.mark.parametrize(
    ("images", "splits"),
    [
        (["train/a.nii", "val/b.nii", "test/c.nii"], ["train", "validation", "test"]),
        (["x/Training/a.nii", "x/Testing/b.nii"], ["train", "test"]),
        (["train/a.nii", "b.nii"], None),
        (["test/a.nii", "test/b.nii"], None),
    ],
)
def test_splits_of_folders_hold_when_every_scan_has_one(images, splits):
    assert folder_splits(images) == splits


def test_labels_by_folder_are_told_with_their_counts():
    rows = rows_from_folders([scan("benign/a.nii"), scan("malignant/b.nii"), scan("other/c.nii")], LabelWords())
    assert [row.label for row in rows.rows] == [0, 1, None]
    assert rows.lines == (
        "label: from folder names, benign=0 (1), malignant=1 (1)",
        "unlabelled: other (1) [--positive WORD counts it as malignant, --negative WORD as benign]",
    )


def test_a_scan_whose_copies_lie_in_folders_of_both_labels_has_none():
    scans = [replace(scan("benign/a.nii"), copies=("malignant/b.nii",)), scan("malignant/c.nii"), scan("benign/d.nii")]
    rows = rows_from_folders(scans, LabelWords())
    assert [row.label for row in rows.rows] == [None, 1, 0]
    assert "1 scans lie in folders of both labels, byte for byte, and stay unlabelled: benign/a.nii" in rows.lines
    same = [replace(scan("benign/a.nii"), copies=("benign/b.nii",)), scan("malignant/c.nii")]
    assert [row.label for row in rows_from_folders(same, LabelWords()).rows] == [0, 1]


def test_a_row_may_name_a_copy_of_the_scan_that_stays():
    scans = [replace(scan("new.nii"), copies=("case 7.nii",)), scan("case 8.nii")]
    found = rows_of(scans, table_of(["id", "finding"], ["case 7", "maligne"], ["case 8", "benigne"]))
    assert [(row.scan.image, row.label) for row in found.rows] == [("new.nii", 1), ("case 8.nii", 0)]


def test_rows_join_scans_and_what_has_no_counterpart_is_told_by_its_row_number():
    scans = [scan(f"{number:03d}.nii") for number in range(1, 5)]
    table = table_of(["Fall", "Befund"], ["1", "gutartig"], ["2", "maligne"], ["3", "maligne"], ["9", "gutartig"])
    found = rows_of(scans, table)
    assert [row.label for row in found.rows] == [0, 1, 1, None]
    assert "1 rows without a scan: 5" in found.lines
    assert "1 scans without a row, which stay unlabelled: 004.nii" in found.lines


def test_contradictory_rows_leave_their_scan_unlabelled_and_named():
    scans = [scan(f"s{number}.nii") for number in range(3)]
    table = table_of(["id", "Befund"], ["s0", "maligne"], ["s0", "gutartig"], ["s1", "maligne"], ["s2", "gutartig"])
    found = rows_of(scans, table)
    assert [row.label for row in found.rows] == [None, 1, 0]
    assert "1 scans have rows with different labels and stay unlabelled: s0.nii" in found.lines


def test_rows_with_centres_are_lesions_of_their_scan():
    scans = [scan("a.nii"), scan("b.nii")]
    table = table_of(
        ["file", "Befund", "x", "y", "z", "system", "Durchmesser (cm)"],
        ["a.nii", "maligne", "1", "2", "3", "LPS", "0.8"],
        ["a.nii", "gutartig", "4", "5", "6", "lps", "1.2"],
        ["b.nii", "maligne", "7", "8", "9", "RAS", ""],
    )
    found = rows_of(scans, table).rows
    assert [(row.scan.image, row.label, row.center_mm) for row in found] == [
        ("a.nii", 1, (-1, -2, 3)),
        ("a.nii", 0, (-4, -5, 6)),
        ("b.nii", 1, (7, 8, 9)),
    ]
    assert [row.extra["diameter_mm"] for row in found] == ["8", "12", ""]


def test_centres_without_a_system_are_refused():
    scans = [scan("a.nii"), scan("b.nii")]
    table = table_of(["file", "x", "y", "z"], ["a.nii", "1", "2", "3"], ["b.nii", "1", "2", "3"])
    with pytest.raises(UsageError, match=r"have no coordinate system: .*or say --system"):
        rows_of(scans, table)


def test_a_row_of_one_side_speaks_of_that_sides_views():
    scans = [scan(f"P1/{view}.dcm", shape=(64, 64, 1)) for view in ("LCC", "LMLO", "RCC", "RMLO")]
    table = table_of(["patient", "side", "pathology"], ["P1", "LEFT", "BENIGN"], ["P1", "RIGHT", "MALIGNANT"])
    found = rows_from_table(
        scans,
        table,
        guess_columns(table, [each.names for each in scans], given={"id": "patient"}),
        LabelWords(),
    )
    assert [row.label for row in found.rows] == [0, 0, 1, 1]


def test_what_may_name_a_person_is_left_out_unless_asked_for():
    scans = [scan(f"{number}.nii") for number in range(3)]
    table = table_of(
        ["id", "Befund", "Name", "Geb.-Datum", "Zentrum", "Alter", "Text"],
        *[
            [str(n), ["gutartig", "maligne"][n % 2], f"N{n}", f"1.2.196{n}", "Nord", str(50 + n), f"{n} " * 30]
            for n in range(3)
        ],
    )
    found = rows_of(scans, table)
    assert list(found.rows[0].extra) == ["Zentrum", "Alter"]
    assert any("may name a person: 'Name', 'Geb.-Datum', 'Text'" in line for line in found.lines)
    assert "Text" in rows_of(scans, table, keep=["Text"]).rows[0].extra


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (LabelWords(), r"holds gutartig \(2\), maligne \(1\); say which word means malignant: --positive WORD"),
        (LabelWords(("malign",)), "no cell says 'malign'.*did you mean 'maligne'"),
    ],
)
def test_label_words_are_asked_for_and_never_guessed(words, says):
    scans = [scan(f"{number}.nii") for number in range(3)]
    table = table_of(["id", "Befund"], ["0", "gutartig"], ["1", "maligne"], ["2", "gutartig"])
    with pytest.raises(UsageError, match=says):
        rows_of(scans, table, words)


def test_the_manifests_own_words_need_no_question():
    scans = [scan(f"{number}.nii") for number in range(4)]
    table = table_of(["id", "diagnosis"], ["0", "benign"], ["1", "Malignant"], ["2", "unsure"], ["3", "n/a"])
    found = rows_of(scans, table, LabelWords())
    assert [row.label for row in found.rows] == [0, 1, None, None]
    assert "unlabelled: unsure (1) [--positive WORD counts it as malignant, --negative WORD as benign]" in found.lines


def test_a_pseudonym_is_the_same_for_one_salt_and_says_nothing_of_the_id(tmp_path, monkeypatch):
    monkeypatch.delenv("MALIGNANCY_PATIENT_SALT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    salt, where = patient_salt()
    assert patient_salt() == (salt, where)
    assert (tmp_path / "malignancy" / "patient-salt").stat().st_mode & 0o077 == 0
    assert pseudonym("P1", salt) == pseudonym("P1", salt) != pseudonym("P1", salt + "x")
    assert "P1" not in pseudonym("P1", salt)
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "mine")
    assert patient_salt() == ("mine", "$MALIGNANCY_PATIENT_SALT")


def test_a_salt_that_can_be_kept_nowhere_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("MALIGNANCY_PATIENT_SALT", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be kept there.*set MALIGNANCY_PATIENT_SALT.*or keep the ids"):
        patient_salt()


def test_an_empty_salt_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("MALIGNANCY_PATIENT_SALT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "malignancy").mkdir()
    (tmp_path / "malignancy" / "patient-salt").touch()
    with pytest.raises(UsageError, match="the salt of patient ids is empty; remove the file"):
        patient_salt()


def test_rows_of_one_scan_with_two_patients_leave_its_patient_open():
    scans = [scan("a.nii"), scan("b.nii")]
    table = table_of(["file", "Patient"], ["a.nii", "P1"], ["a.nii", "P2"], ["b.nii", "P3"], ["b.nii", "P3"])
    assert [row.patient for row in rows_of(scans, table).rows] == [None, "P3"]


def test_rows_with_the_same_centre_are_one_lesion_and_half_a_centre_is_none():
    scans = [scan("a.nii"), scan("b.nii")]
    table = table_of(
        ["file", "Befund", "x", "y", "z", "system"],
        ["a.nii", "maligne", "1", "2", "3", "RAS"],
        ["a.nii", "gutartig", "1", "2", "3", "RAS"],
        ["b.nii", "maligne", "7", "", "9", "RAS"],
    )
    found = rows_of(scans, table)
    assert [(row.label, row.center_mm) for row in found.rows] == [(None, (1, 2, 3)), (1, None)]
    assert "1 scans have rows with different labels and stay unlabelled: a.nii" in found.lines


def test_patients_and_dates_are_not_copied_into_other_columns():
    scans = [scan(f"{number}.nii") for number in range(4)]
    table = table_of(
        ["id", "Patient", "Befund", "Aufnahme", "Grade"],
        *[[str(n), f"P{n // 2}", ["gutartig", "maligne"][n % 2], f"2019-03-0{n + 1}", "I"] for n in range(4)],
    )
    found = rows_of(scans, table)
    assert dict(found.rows[0].extra) == {"Grade": "I"}
    assert any("may name a person: 'Aufnahme' [--keep" in line for line in found.lines)


def test_a_text_that_is_another_in_every_row_is_not_copied():
    scans = [scan(f"{number}.nii") for number in range(40)]
    rows = [[str(n), ["gutartig", "maligne"][n % 2], f"K{n}", str(n / 7)] for n in range(40)]
    found = rows_of(scans, table_of(["id", "Befund", "Kennung", "Volumen"], *rows))
    assert list(found.rows[0].extra) == ["Volumen"]


def test_a_missing_label_is_blank_in_any_letter_case():
    scans = [scan(f"{number}.nii") for number in range(4)]
    table = table_of(["id", "Befund"], ["0", "gutartig"], ["1", "maligne"], ["2", "N/A"], ["3", "NULL"])
    assert [row.label for row in rows_of(scans, table).rows] == [0, 1, None, None]


def test_malignant_beside_another_word_than_benign_is_asked_for():
    scans = [scan(f"{number}.nii") for number in range(3)]
    table = table_of(["id", "diagnosis"], ["0", "malignant"], ["1", "healthy"], ["2", "malignant"])
    with pytest.raises(UsageError, match="say which word means malignant"):
        rows_of(scans, table, LabelWords())


def test_splits_of_folders_hold_beside_a_table_without_splits():
    scans = [scan("train/a.nii"), scan("test/b.nii")]
    table = table_of(["file", "Befund"], ["a.nii", "maligne"], ["b.nii", "gutartig"])
    assert [row.split for row in rows_of(scans, table).rows] == ["train", "test"]
    said = table_of(["file", "Befund", "Split"], ["a.nii", "maligne", "test"], ["b.nii", "gutartig", "training"])
    assert [row.split for row in rows_of(scans, said).rows] == ["test", "train"]


def test_labels_stand_at_the_level_that_most_scans_have():
    images = ["malignant/1.png", "malignant/2.png", "benign/malignant_looking/3.png"]
    found = folder_labels(images, LabelWords())
    assert found.labels == (1, 1, None)  # what the last folders say together is no label
    assert found.unlabelled == {"benign/malignant_looking": 1}


@pytest.mark.parametrize(
    "name",
    [
        *("not malignant", "non_malignant", "Non-malignant", "pre-malignant", "suspected malignant", "nicht bösartig"),
        *("benign_to_malignant", "benign looking", "malignant?? benign", "probably benign"),
    ],
)
def test_a_folder_that_says_more_than_a_class_leaves_its_scans_unlabelled(name):
    images = ["benign/1.png", "malignant/2.png", f"{name}/3.png", f"malignant/{name}/4.png"]
    found = folder_labels(images, LabelWords())
    assert found.labels == (0, 1, None, None)
    assert found.unlabelled == {name: 1, f"malignant/{name}": 1}


@pytest.mark.parametrize("name", ["malignant", "01_malignant", "Malignant cases", "malignant nodules 2019", "MALIGNE"])
def test_numbers_and_neutral_words_beside_a_class_change_nothing(name):
    assert folder_labels([f"{name}/1.png", "benign/2.png"], LabelWords()).labels == (1, 0)


def test_a_folders_name_that_was_given_wins():
    images = ["benign/1.png", "malignant/2.png", "not malignant/3.png"]
    assert folder_labels(images, LabelWords((), ("not malignant",))).labels == (0, 1, 0)
    words = LabelWords(("malignant",), ("benign", "Not malignant"))
    assert folder_labels(images, words).labels == (0, 1, 0)
    assert folder_labels(["cancer/1.png", "no cancer/2.png"], LabelWords(("cancer",), ("no cancer",))).labels == (1, 0)
    assert folder_labels(["1/1.png", "0/2.png"], LabelWords(("1",))).labels == (1, 0)


@pytest.mark.parametrize("words", [LabelWords(("cancr",)), LabelWords(("cancer",), ("helthy",))])
def test_a_word_that_is_no_folders_name_is_refused(words):
    with pytest.raises(UsageError, match=r"no folder is called so.*; did you mean '(cancer|healthy)'"):
        folder_labels(["cancer/1.png", "healthy/2.png"], words)


def test_folders_that_could_be_classes_are_named():
    images = [f"data/{name}/{number}.png" for name in "01" for number in range(2)]
    found = rows_from_folders([scan(image) for image in images], LabelWords())
    assert found.lines == ("label: no folder is called malignant or benign; there are 0 (2), 1 (2) [--positive WORD]",)


def centres(*rows):
    """Rows of one scan with a centre or blank, and their labels."""
    cells = [["a.nii", *(center.split() if center else ["", "", ""]), label] for center, label in rows]
    table = table_of(["file", "x", "y", "z", "system", "finding"], *[[*row[:4], "RAS", row[4]] for row in cells])
    columns = guess_columns(table, [scan("a.nii").names], given={"id": "file", "label": "finding"})
    return rows_from_table([scan("a.nii")], table, columns, LabelWords(("bad",), ("good",)))


def test_a_centre_that_stands_twice_costs_no_other_lesion():
    found = centres(("1 2 3", "bad"), ("1 2 3", "bad"), ("90 9 9", "good"))
    assert [(row.center_mm, row.label) for row in found.rows] == [((1, 2, 3), 1), ((90, 9, 9), 0)]


def test_one_place_with_both_labels_has_none():
    found = centres(("1 2 3", "bad"), ("1 2 3", "good"), ("90 9 9", "good"))
    assert [row.label for row in found.rows] == [None, 0]


def test_rows_without_a_centre_do_not_hide_one():
    found = centres(("", "bad"), ("", "good"), ("90 9 9", "good"))
    assert [(row.center_mm, row.label) for row in found.rows] == [((90, 9, 9), 0)]
    assert "2 rows without a lesion centre are left out, of scans whose other rows have one" in found.lines


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("PatientName", ["a", "b"]),
        ("PatientBirthDate", ["19610203", "19610204"]),
        ("born", ["19610203", "19610204"]),
        ("AccessionNumber", ["CT1", "CT2"]),
        ("StudyInstanceUID", ["1.2", "1.3"]),
        ("InsuranceNo", ["1234567", "7654321"]),
    ],
)
def test_columns_that_may_name_a_person_are_not_copied(name, cells):
    table = table_of(["id", "finding", name], ["0", "maligne", cells[0]], ["1", "gutartig", cells[1]])
    found = rows_of([scan("0.nii"), scan("1.nii")], table)
    assert all(name not in row.extra for row in found.rows)
    assert f"columns left out, which may name a person: '{name}' [--keep COLUMN]" in found.lines


def test_a_column_of_the_manifests_own_name_gets_another():
    table = table_of(["image", "label", "diagnosis"], ["0.nii", "x", "maligne"], ["1.nii", "x", "gutartig"])
    found = rows_of([scan("0.nii"), scan("1.nii")], table)
    assert [row.extra for row in found.rows] == [{"label of the table": "x"}] * 2


def test_a_column_case_id_gives_the_cases_ids():
    table = table_of(["case_id", "image", "finding"], ["c7", "0.nii", "maligne"], ["c8", "1.nii", "gutartig"])
    assert [row.case_id for row in rows_of([scan("0.nii"), scan("1.nii")], table).rows] == ["c7", "c8"]
