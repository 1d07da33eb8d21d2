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
        "unlabelled: other (1) [--negative WORD counts a folder as benign]",
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
    assert "unlabelled: unsure (1) [--negative WORD counts a word as benign]" in found.lines


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
