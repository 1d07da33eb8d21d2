"""Ids of a table and names of files: joined one way for the whole table, and nothing by accident."""

import pytest

from pipeline.cases.intake.joining import ScanNames, join_ids, near_misses
from pipeline.cases.intake.names import same_id


def scans_of(*images, **ids):
    return [ScanNames(image, {kind: values[n] for kind, values in ids.items()}) for n, image in enumerate(images)]


@pytest.mark.parametrize(
    ("ids", "images", "way"),
    [
        (["a/x.nii.gz", "b/x.nii.gz"], ["a/x.nii.gz", "b/x.nii.gz"], "path"),
        (["a\\x.nii.gz", ".\\b\\x.nii.gz"], ["a/x.nii.gz", "b/x.nii.gz"], "path"),
        (["s1.nii", "s2"], ["a/s1.nii", "b/s2.nii"], "file name"),
        (["P1", "P2"], ["P1/ct.nii", "P2/ct.nii"], "folder name"),
        (["S 1", "s_02"], ["S01.nii.gz", "S02.nii.gz"], "file name, but for case"),
        (["1", "2.0"], ["CT/Pat_001_Thorax_2.nii.gz", "CT/Pat_002_Thorax_2.nii.gz"], "part of the file name"),
        (["0", "1"], ["Pat_000_ct.nii", "Pat_001_ct.nii"], "part of the file name"),
        (["7", "8"], ["x/P007/ct.nii", "x/P008/ct.nii"], "part of the folder name"),
        (["Pat 3", "Pat 4"], ["new_pat_003_ct.nii", "new_pat_004_ct.nii"], "words inside the file name"),
        (["Müller-1", "MULLER 2"], ["mueller/muller_1.nii", "mueller/muller_2.nii"], "file name, but for case"),
    ],
)
def test_ids_find_their_files(ids, images, way):
    join = join_ids(ids, scans_of(*images))
    assert join.scans_of == ((0,), (1,))
    assert join.way.startswith(way)


def test_dicom_ids_join_all_series_of_a_patient():
    scans = scans_of("s1#a", "s2#b", "s3#c", patient=["0071", "0071", "88"], study=["1.2", "1.3", "1.4"])
    assert join_ids(["71", "88"], scans).scans_of == ((0, 1), (2,))
    assert join_ids(["1.3"], scans).way == "study id of the DICOM header"


def test_one_way_holds_for_the_whole_table():
    # 2 is a part of every name, but the ids are the numbers that tell the names apart.
    scans = scans_of("scan2_010.nii", "scan2_011.nii", "scan2_012.nii")
    assert join_ids(["10", "11", "12", "2"], scans).scans_of == ((0,), (1,), (2,), ())


def test_what_matches_less_than_half_of_the_ids_is_no_join():
    assert join_ids(["1", "x", "y", "z"], scans_of("p_1.nii", "p_2.nii")) is None
    assert join_ids(["", " "], scans_of("a.nii")) is None
    assert join_ids(["a"], []) is None


def test_blank_ids_match_nothing():
    assert join_ids(["a", ""], scans_of("a.nii", ".nii")).scans_of == ((0,), ())


def test_an_id_that_is_nearly_a_name_is_told_with_it():
    scans = scans_of("patient_17.nii", "patient_18.nii", "patient_19.nii")
    ids = ["patient_17", "patient_18", "pateint_19"]
    join = join_ids(ids, scans)
    assert join.matched_rows == 2
    assert near_misses(ids, join, scans) == [(2, "patient_19.nii")]


@pytest.mark.parametrize(
    ("one", "other"), [("007", "7"), ("7.0", "7"), ("P_01", "p-1"), (" Ä1 ", "a1"), ("1000.00", "1000")]
)
def test_what_spreadsheets_change_leaves_an_id_the_same(one, other):
    assert same_id(one) == same_id(other)


@pytest.mark.parametrize(("one", "other"), [("70", "7"), ("1e5", "100000"), ("P1", "P2"), ("7.5", "75.0")])
def test_other_ids_stay_other(one, other):
    assert same_id(one) != same_id(other)


def test_half_of_the_ids_are_enough():
    assert join_ids(["p_1", "p_2", "y", "z"], scans_of("p_1.nii", "p_2.nii")).scans_of == ((0,), (1,), (), ())


def test_of_ways_that_match_as_many_rows_the_strictest_holds():
    join = join_ids(["a", "b", "x"], scans_of("b/a.nii", "a/b.nii"))
    assert join.scans_of == ((0,), (1,), ())


def test_codes_of_a_class_are_no_ids():
    assert join_ids(["1", "2"] * 30, scans_of("p_1.nii", "p_2.nii", "p_3.nii")) is None


def test_a_part_that_all_names_share_tells_no_scan():
    assert join_ids(["2", "2"], scans_of("scan_2_a.nii", "scan_2_b.nii"), named=True) is None


def shuffled(pattern, count=28):
    """Names of 1 to ``count`` in which another number of the same range stands too."""
    return scans_of(*[pattern.format(n=n, other=(7 * n) % (count + 1)) for n in range(1, count + 1)])


NUMBERS = [str(n) for n in range(1, 29)]


@pytest.mark.parametrize("pattern", ["2020-{other}_patient{n}.nii.gz", "CT{other}_pat_{n:03d}.nii"])
def test_the_number_after_a_word_that_announces_an_id_is_the_id(pattern):
    join = join_ids(NUMBERS, shuffled(pattern), name="nr")
    assert join.scans_of == tuple((n,) for n in range(28))
    assert join.doubt is None


def test_the_number_after_a_word_of_the_columns_name_is_the_id():
    join = join_ids(NUMBERS, shuffled("scan{other}_case{n}.nii"), name="case no")
    assert join.scans_of == tuple((n,) for n in range(28))


def test_numbers_that_stand_at_two_places_of_the_names_are_a_doubt():
    join = join_ids(NUMBERS, shuffled("a{other}_b{n}.nii"), name="nr")
    number, one, other = join.doubt
    assert one != other
    assert number in NUMBERS


def test_ids_with_letters_are_no_doubt_where_numbers_repeat():
    ids = [f"P{n}" for n in range(1, 29)]
    join = join_ids(ids, scans_of(*[f"{n}_P{n}_{(7 * n) % 29}.nii" for n in range(1, 29)]), name="nr")
    assert join.scans_of == tuple((n,) for n in range(28))
    assert join.doubt is None
