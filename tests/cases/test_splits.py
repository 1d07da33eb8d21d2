"""Splits: patients are never shared, both classes are everywhere, and the draw is repeatable."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest
from pipeline.cases.splits import assign_splits, patient_folds
from pipeline.config.inputs import SPLITS, SplitFractions
from pipeline.errors import TableError

FRACTIONS = SplitFractions()


def manifest(rows, tmp_path="."):
    from pathlib import Path

    cases = tuple(
        Case(case_id=f"c{n}", image=f"{n}.nii", path=Path(f"{n}.nii"), patient_id=who, label=label, split=split)
        for n, (who, label, split) in enumerate(rows)
    )
    return Manifest(path=Path("m.csv"), root=Path(), cases=cases, columns=(), digest="", faults=(), repeated_rows=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=120, max_size=300), st.integers(0, 5))
def test_drawn_splits_partition_the_patients(pairs, seed):
    rows = [(f"P{who}", int(label), None) for who, label in pairs]
    table = manifest(rows)
    try:
        splits = assign_splits(table, FRACTIONS, seed=seed)
    except TableError:
        return  # too few patients of a class
    where = {}
    for case in table.cases:
        where.setdefault(case.patient_id, set()).add(splits.of[case.case_id])
    assert all(len(found) == 1 for found in where.values())
    assert set(splits.of) == {case.case_id for case in table.cases}
    labels = {name: {case.label for case in table.cases if splits.of[case.case_id] == name} for name in SPLITS}
    assert all(found == {0, 1} for found in labels.values())


def test_draw_is_repeatable_and_follows_the_fractions():
    table = manifest([(f"P{n}", n % 3 == 0, None) for n in range(600)])
    one, two, other = (assign_splits(table, FRACTIONS, seed=seed) for seed in (0, 0, 1))
    assert one == two
    assert one.digest != other.digest
    counts = Counter(one.of.values())
    assert {name: round(counts[name] / 600, 2) for name in SPLITS} == {
        "train": 0.55,
        "validation": 0.15,
        "calibration": 0.15,
        "test": 0.15,
    }
    share = [sum(case.label for case in table.cases if one.of[case.case_id] == name) / counts[name] for name in SPLITS]
    assert max(share) - min(share) < 0.02


def test_unlabelled_cases_are_in_no_split():
    table = manifest([(f"P{n}", n % 2, None) for n in range(40)] + [("P1", None, None)])
    assert "c40" not in assign_splits(table, FRACTIONS, seed=0).of


def test_manifest_splits_are_kept():
    rows = [(f"P{n}", n % 2, SPLITS[n // 2 % 4]) for n in range(16)]
    splits = assign_splits(manifest(rows), FRACTIONS, seed=0)
    assert splits.source == "manifest"
    assert [splits.of[f"c{n}"] for n in range(16)] == [split for _, _, split in rows]


def test_partly_blank_split_column_is_refused():
    rows = [(f"P{n}", n % 2, None if n == 3 else SPLITS[n // 2 % 4]) for n in range(16)]
    with pytest.raises(TableError, match=r"1 labelled cases have no split \(first: 'c3'\)"):
        assign_splits(manifest(rows), FRACTIONS, seed=0)


def test_split_without_a_class_is_refused():
    rows = [(f"P{n}", n % 2 if n // 2 % 4 else 0, SPLITS[n // 2 % 4]) for n in range(16)]
    with pytest.raises(TableError, match="split 'train' has 4 benign and 0 malignant"):
        assign_splits(manifest(rows), FRACTIONS, seed=0)


def test_too_few_patients_are_refused():
    with pytest.raises(TableError, match="four splits need at least 4 of each"):
        assign_splits(manifest([(f"P{n}", n == 0, None) for n in range(20)]), FRACTIONS, seed=0)


def test_folds_keep_patients_whole():
    cases = manifest([(f"P{n % 30}", n % 30 % 2, None) for n in range(90)]).cases
    folds = patient_folds(cases, 5, seed=0)
    assert {case.patient_id: fold for case, fold in zip(cases, folds, strict=True)} == dict(
        sorted({(case.patient_id, fold) for case, fold in zip(cases, folds, strict=True)})
    )
    assert set(folds) == set(range(5))
