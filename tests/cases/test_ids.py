"""Ids in the spellings that spreadsheets give them."""

import pytest

from pipeline.cases.ids import is_rounded, plain_id, spelt_apart


@pytest.mark.parametrize("text", ["1000.0", "01000", "1000.00", " 1000 ", "1000.", "\uff11\uff10\uff10\uff10"])
def test_a_number_is_one_id_however_a_spreadsheet_writes_it(text):
    assert plain_id(text) == "1000"


@pytest.mark.parametrize("text", ["1000.5", "10000", "1000a", "100.0.0", "-1000", "1,000"])
def test_other_ids_stay_others(text):
    assert plain_id(text) != "1000"


@pytest.mark.parametrize(("text", "plain"), [("0", "0"), ("000", "0"), ("0.0", "0"), ("P-07 ", "p-07"), ("", "")])
def test_zeros_and_words(text, plain):
    assert plain_id(text) == plain


def test_pairs_name_the_first_spelling():
    assert spelt_apart(["7", "8", "007", "7", "7.0", "P1", "p1"]) == [("7", "007"), ("7", "7.0"), ("P1", "p1")]


@pytest.mark.parametrize(("text", "rounded"), [("1.23457E+11", True), ("1e+05", True), ("1e5", False), ("E+11", False)])
def test_numbers_that_a_spreadsheet_shortened(text, rounded):
    assert is_rounded(text) is rounded
