"""The manifest: nothing is guessed, every mistake is named, ids stay as they are."""

import pandas as pd
import pytest

from pipeline.cases.manifest import read_manifest
from pipeline.errors import Code, TableError

GOOD = "case_id,patient_id,image,label\na,P1,a.nii.gz,1\nb,P2,b.nii.gz,0\nc,P3,c.nii.gz,\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="manifest.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_manifest(path)

    return read_text


def codes(manifest):
    return [fault.code for fault in manifest.faults]


def test_good_table(read, tmp_path):
    manifest = read(GOOD)
    assert codes(manifest) == []
    assert [(case.case_id, case.patient_id, case.label) for case in manifest.cases] == [
        ("a", "P1", 1),
        ("b", "P2", 0),
        ("c", "P3", None),
    ]
    assert manifest.cases[0].path == tmp_path.resolve() / "a.nii.gz"
    manifest.require_usable()


@pytest.mark.parametrize("text", ["007", "1E5", "0x10", "1_000", "8,5", "true", "3", "é–漢"])
def test_ids_stay_exactly_as_they_are(read, text):
    case = read(f"case_id;patient_id;image;label\n{text};{text};a.nii;1\nother;P;b.nii;0\n").cases[0]
    assert (case.case_id, case.patient_id) == (text, text)


def test_byte_order_mark_blank_lines_and_float_labels_are_accepted(read):
    manifest = read(b"\xef\xbb\xbf" + GOOD.replace(",1\n", ",1.0\n").encode() + b"\n,,,\n\n")
    assert codes(manifest) == []
    assert [case.label for case in manifest.cases] == [1, 0, None]


def test_case_id_is_the_path_by_default(read):
    assert read("image,label,patient_id\nx/a.nii,1,P\ny/a.nii,0,Q\n").cases[1].case_id == "y/a.nii"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", Code.E_EMPTY_FILE, "is empty"),
        (" \n \n", Code.E_EMPTY_FILE, "is empty"),
        ("image,label,patient_id\n", Code.E_NO_ROWS, "no rows"),
        (GOOD.replace("P1", "é").encode("latin-1"), Code.E_ENCODING, "byte 33 is not UTF-8"),
        (GOOD.replace("P2", "P\0"), Code.E_ENCODING, "NUL character in line 3"),
        ("image,image\na,b\n", Code.E_LABEL_COLUMNS, "'image' stands twice"),
        ("scan,label\na,1\n", Code.E_LABEL_COLUMNS, "no column 'image'"),
        ("image, label\na,1\n", Code.E_LABEL_COLUMNS, "spaces around it"),
        (GOOD + "d,P4,d.nii.gz,1,extra\n", Code.E_LABEL_COLUMNS, "line 5 has 5 cells, the header has 4"),
        ('image,label\n"a,1\n', Code.E_FORMAT, "is not CSV"),
        (GOOD + "a,P9,z.nii.gz,0\n", Code.E_CASE_ID, "'a' stands 2 times"),
        ("case_id,image\n a,x.nii\n", Code.E_CASE_ID, "spaces around it"),
        ('case_id,image\n"a\nb",x.nii\n', Code.E_CASE_ID, "control characters"),
        ("image,label,patient_id\na.nii,1,P\na.nii,0,P\n", Code.E_LABEL_CONFLICT, "labelled both 0 and 1"),
        ("image,label,patient_id,note\na.nii,1,P,x\na.nii,1,P,y\n", Code.E_CASE_ID, "add a unique case_id column"),
        (b"PAR1 not parquet", Code.E_FORMAT, "not a readable Parquet"),
    ],
)
def test_table_that_cannot_be_read(read, text, code, says):
    with pytest.raises(TableError, match=says) as caught:
        read(text)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (GOOD.replace(",1\n", ",2\n"), Code.E_LABEL_VALUE, r"holds 2 \(1\) in 1 rows, expected 1"),
        (GOOD.replace(",1\n", ",-1\n"), Code.E_LABEL_VALUE, r"holds -1 \(1\)"),
        (GOOD.replace(",1\n", ",NaN\n"), Code.E_LABEL_VALUE, r"holds NaN \(1\)"),
        (
            GOOD.replace(",1\n", ",malignant\n"),
            Code.E_LABEL_VALUE,
            r"holds malignant \(1\) in 1 rows.*name the word that means malignant \(data.positive_label",
        ),
        (GOOD.replace(",1\n", ",0\n"), Code.E_ONE_CLASS, "only label 0 in 3 rows"),
        ("image,patient_id\na,P\n", Code.E_LABEL_COLUMNS, "no column 'label'"),
        ("image,label\na,1\nb,0\n", Code.E_LABEL_COLUMNS, "no column 'patient_id'"),
        (GOOD.replace("P1", ""), Code.E_LABEL_COLUMNS, r"1 labelled case has no patient_id \('a'\)"),
        (GOOD.replace("P1", "P1 "), Code.E_LABEL_COLUMNS, r"1 patient_id has spaces around \('P1 '\)"),
        (
            GOOD + "d,01,a.nii.gz#2,0\ne,1.0,b.nii.gz#2,0\n",
            Code.E_PATIENT_LEAK,
            r"1 patient_id is another one but for the spelling \('01' and '1.0'\)",
        ),
        (GOOD.replace("P1", "1.2E+11"), Code.E_LABEL_COLUMNS, r"'1.2E\+11' in 1 rows was shortened by a spreadsheet"),
        (
            GOOD + "d,P4,./x/../a.nii.gz,0\n",
            Code.E_LABEL_CONFLICT,
            "1 place has cases with different labels: 'a', 'd' are the same place of 'a.nii.gz'",
        ),
        (
            GOOD + "d,P4,a.nii.gz,0\n",
            Code.E_LABEL_CONFLICT,
            "1 place has cases with different labels: 'a', 'd' are the same place of 'a.nii.gz'",
        ),
        (
            "image,label,patient_id,split\na,1,P,train\nb,0,P,test\n",
            Code.E_PATIENT_LEAK,
            r"1 patient is in several splits \('P' in test and train\)",
        ),
        (
            "image,label,patient_id,split\na,1,P,train\nb,0,Q,valid\n",
            Code.E_SPLIT_VALUE,
            "split 'valid' in 1 rows, expected one of train.*did you mean 'validation'",
        ),
    ],
)
def test_table_that_cannot_be_trained_on(read, text, code, says):
    manifest = read(text)
    assert code in codes(manifest)
    with pytest.raises(TableError, match=says):
        manifest.require_usable()


def test_repeated_row_is_dropped_and_counted(read):
    manifest = read(GOOD + "a,P1,a.nii.gz,1\n")
    assert manifest.repeated_rows == 1
    assert len(manifest.cases) == 3
    assert codes(manifest) == []


def test_faults_of_one_row_stay_with_it(read):
    header = "case_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system\n"
    rows = [
        "ok,a.nii,1,2,3,RAS",
        "lps,a.nii,1,2,3,LPS",
        "none,a.nii,,,,",
        "half,a.nii,1,,3,RAS",
        "nan,a.nii,1,nan,3,RAS",
        "sys,a.nii,1,2,3,",
        "blank,,1,2,3,RAS",
    ]
    cases = {case.case_id: case for case in read(header + "\n".join(rows) + "\n").cases}
    assert cases["ok"].center_mm == (1, 2, 3)
    assert cases["lps"].center_mm == (-1, -2, 3)
    assert cases["none"].center_mm is None
    assert cases["none"].fault is None
    for name in ("half", "nan", "sys"):
        assert cases[name].fault.code == Code.E_CENTER
    assert cases["blank"].fault.code == Code.E_NOT_FOUND


def test_two_lesions_of_one_scan_may_differ_in_label(read):
    header = "case_id,patient_id,image,label,center_x_mm,center_y_mm,center_z_mm,coordinate_system\n"
    manifest = read(header + "a,P,s.nii,1,1,2,3,RAS\nb,P,s.nii,0,4,5,6,RAS\n")
    assert codes(manifest) == []


def test_parquet_gives_the_same_cases(tmp_path, read):
    frame = pd.DataFrame(
        {"case_id": ["007", "b", "c"], "patient_id": ["1", "2", "3"], "image": list("xyz"), "label": [1.0, 0.0, None]}
    )
    frame.to_parquet(tmp_path / "m.parquet")
    cases = read_manifest(tmp_path / "m.parquet").cases
    assert [(case.case_id, case.label) for case in cases] == [("007", 1), ("b", 0), ("c", None)]


def test_missing_manifest_and_folder(tmp_path):
    with pytest.raises(TableError, match="no such table"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(TableError, match="is a folder"):
        read_manifest(tmp_path)


@pytest.fixture
def read_with(read, tmp_path):
    def read_both(text):
        read(GOOD)
        (tmp_path / "more.csv").write_text(text)
        return read_manifest(tmp_path / "manifest.csv", tmp_path / "more.csv")

    return read_both


def test_a_second_table_adds_columns_to_the_cases_it_names(read, read_with):
    manifest = read_with("size,case_id\n007,c\n2.5,a\n1,unknown\n")
    assert [case.extra["size"] for case in manifest.cases] == ["2.5", "", "007"]
    assert manifest.columns == ("size",)
    assert manifest.digest != read(GOOD).digest
    assert manifest.digest != read_with("size,case_id\n007,c\n2.6,a\n1,unknown\n").digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size\n1\n", "needs 'case_id' and another"),
        ("case_id\na\n", "needs 'case_id' and another"),
        ("case_id,label\na,1\n", "column 'label' is the manifest's"),
        ("case_id,size\na,1\na,2\n", "1 case ids stand twice"),
        ("case_id,size\nx,1\n", "names none of the 3 cases"),
        ("case_id,size,size\na,1,2\n", "column 'size' stands twice"),
        ("case_id,size\na\n", "line 2 has 1 cells"),
    ],
)
def test_a_second_table_that_does_not_fit_is_refused(read_with, text, says):
    with pytest.raises(TableError, match=says):
        read_with(text)


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NA", "n/a", "<NA>"])
def test_a_missing_id_written_as_a_word_is_no_patient(read, text):
    manifest = read(f"case_id,patient_id,image,label\na,{text},a.nii,1\nb,{text},b.nii,0\n")
    with pytest.raises(TableError, match=f"patient_id '{text}' in 2 rows stands for a missing id"):
        manifest.require_usable()


def test_a_fault_of_many_rows_is_one_line_with_a_count_and_three_examples(read):
    rows = "".join(f"c{number},,{number}.nii,{number % 2}\n" for number in range(40))
    (fault,) = read("case_id,patient_id,image,label\n" + rows).faults
    assert "40 labelled cases have no patient_id ('c0', 'c1', 'c2' and 37 more)" in str(fault)


def test_semicolons_decimal_commas_and_any_case_of_the_coordinate_system(read):
    manifest = read(
        "case_id;patient_id;image;label;center_x_mm;center_y_mm;center_z_mm;coordinate_system;diameter_mm\n"
        "0012;0012;a.nii;1;-12,5;3,25;1.004,5;lps;8,5\n"
        "0013;0013;b.nii;0;1;2;3;Ras;12\n"
    )
    first, second = manifest.cases
    assert (first.case_id, first.center_mm, first.extra["diameter_mm"]) == ("0012", (12.5, -3.25, 1004.5), "8.5")
    assert second.center_mm == (1, 2, 3)
    assert any("separated by semicolons" in note for note in manifest.notes)
    assert any("decimal commas in 'center_x_mm'" in note for note in manifest.notes)


def test_words_mean_what_the_file_beside_the_table_says(read, tmp_path):
    text = "case_id,patient_id,image,label\na,P1,a,maligne\nb,P2,b,Gutartig\nc,P3,c,\n"
    assert "name the word that means malignant" in str(read(text).faults[0])
    before = read(text).digest
    (tmp_path / "manifest.yaml").write_text("positive_label: maligne\nlabel_source: histology\nintensities: real\n")
    manifest = read(text)
    assert [case.label for case in manifest.cases] == [1, 0, None]
    assert manifest.facts.label_sources == {"histology": 2}
    assert manifest.facts.intensities == {"real": 3}
    assert manifest.digest != before


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("positive_label: malign\n", "no cell says 'malign'; the column holds .*did you mean 'maligne'"),
        (
            "positive_label: maligne\n",
            r"there are 2 words \(gutartig \(1\), unklar \(1\)\); name those that mean benign",
        ),
        ("positive_label: maligne\nnegative_label: maligne\n", "as malignant and as benign"),
    ],
)
def test_words_whose_meaning_nobody_gave_are_a_fault(read, tmp_path, facts, says):
    (tmp_path / "manifest.yaml").write_text(facts)
    text = "case_id,patient_id,image,label\na,P1,a,maligne\nb,P2,b,gutartig\nc,P3,c,unklar\n"
    with pytest.raises(TableError, match=says):
        read(text).require_usable()


def test_a_word_that_is_neither_leaves_its_case_unlabelled(read, tmp_path):
    (tmp_path / "manifest.yaml").write_text("positive_label: maligne\nnegative_label: [gutartig]\n")
    manifest = read("case_id,patient_id,image,label\na,P1,a,MALIGNE\nb,P2,b,gutartig\nc,P3,c,unklar\n")
    assert [case.label for case in manifest.cases] == [1, 0, None]
    assert manifest.faults == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "holds list"),
        ("label_sorce: x\n", "label_sorce: extra inputs are not permitted; a table's own file holds label_source"),
        ("intensities: fake\n", "intensities: input should be 'real' or 'simulated'"),
        ("a: [\n", "cannot be read as YAML"),
        ("a: &a [x]\nb: *a\n", "cannot be read as YAML \\(an alias"),
    ],
)
def test_a_damaged_file_beside_the_table_is_refused(read, tmp_path, text, says):
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(TableError, match=says):
        read(GOOD)


def test_a_configuration_with_the_tables_name_says_nothing_of_it(read, tmp_path):
    (tmp_path / "manifest.yaml").write_text("name: x\npreprocessing: {region: image}\n")
    assert read(GOOD).facts.label_sources == {}


def test_columns_say_of_each_case_whose_opinion_its_label_is(read):
    manifest = read(
        "case_id,patient_id,image,label,label_source,intensities\n"
        "a,P1,a,1,histology,real\nb,P2,b,0,opinion,Simulated\nc,P3,c,,,real\n"
    )
    assert manifest.facts.label_sources == {"histology": 1, "opinion": 1}
    assert manifest.facts.intensities == {"real": 2, "simulated": 1}
    with pytest.raises(TableError, match="holds 'fake', expected real or simulated"):
        read("image,intensities\na,fake\n")


def test_a_column_that_is_nearly_the_one_needed_is_named(read):
    with pytest.raises(TableError, match="did you mean 'images'"):
        read("images,label\na,1\n")
    (fault, *_) = read("image,labels,patient_id\na,1,P\n").faults
    assert "no column 'label', which training and evaluation need; did you mean 'labels'?" in str(fault)


def test_ids_in_another_spelling_do_not_leave_cells_blank(tmp_path, read):
    read("case_id,image\n007,a\n008,b\nx,c\n")
    (tmp_path / "more.csv").write_text("case_id,size\n7,1\n8,2\nx,3\n")
    with pytest.raises(TableError, match="2 case ids are spelt otherwise"):
        read_manifest(tmp_path / "manifest.csv", tmp_path / "more.csv")
