import pandas as pd
import pytest
from studies import calibrator, frame, point, predictions

from pipeline.errors import UsageError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.subgroups import evaluate_subgroups, partition

TEST = predictions(500, seed=6)


def test_each_value_is_judged_alone():
    groups = evaluate_subgroups(TEST, ["site"], operating_point=point(), resamples=100)
    assert [group.value for group in groups] == ["north", "south"]
    assert sum(group.n_cases for group in groups) == 500
    alone = Predictions.from_frame(TEST.frame[TEST.frame["site"] == "north"])
    assert groups[0].evaluation == evaluate(alone, operating_point=point(), resamples=100, null_draws=200)


def test_bands_part_a_numeric_column():
    bands = {"diameter_mm": (6, 15)}
    groups = evaluate_subgroups(TEST, ["diameter_mm"], operating_point=point(), bands=bands, resamples=50)
    assert [group.value for group in groups] == ["below 6", "6 to 15", "15 and above"]
    diameters = TEST.frame["diameter_mm"]
    assert groups[1].n_cases == ((diameters >= 6) & (diameters < 15)).sum()


def test_a_band_holds_its_lower_edge_and_not_its_upper():
    parts = partition(pd.Series([5.9, 6.0, 15.0, None], name="diameter_mm"), edges=(6, 15))
    assert {name: members.tolist() for name, members in parts.items()} == {
        "below 6": [True, False, False, False],
        "6 to 15": [False, True, False, False],
        "15 and above": [False, False, True, False],
        "(missing)": [False, False, False, True],
    }


def test_a_numeric_column_without_edges_is_parted_at_its_thirds():
    sizes = [members.sum() for members in partition(TEST.frame["diameter_mm"]).values()]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 3


def test_missing_values_are_a_group_of_their_own():
    parts = partition(pd.Series(["a", None, "b", "a"], name="site"))
    assert {name: members.tolist() for name, members in parts.items()} == {
        "a": [True, False, False, True],
        "b": [False, False, True, False],
        "(missing)": [False, True, False, False],
    }
    assert list(partition(pd.Series([1.0, None, 2.0], name="grade"))) == ["1", "2", "(missing)"]


def test_a_group_of_few_patients_of_each_class_keeps_what_all_of_them_define():
    rows = frame(500, seed=6).assign(site=["tiny"] * 12 + ["large"] * 488)
    made = Predictions.from_frame(rows).with_probabilities(calibrator().apply)
    large, tiny = evaluate_subgroups(made, ["site"], operating_point=point(), resamples=50)
    assert large.evaluation is not None
    assert tiny.evaluation is not None
    assert set(tiny.evaluation.intervals) == {"observed_expected"}  # 12 patients, 5 of them with malignant cases
    assert tiny.n_cases == 12
    assert "too few patients to say" in tiny.too_few


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no column 'scanner'; there are: site, diameter_mm"):
        evaluate_subgroups(TEST, ["scanner"], operating_point=point())
    with pytest.raises(UsageError, match="'site' is not numeric"):
        evaluate_subgroups(TEST, ["site"], operating_point=point(), bands={"site": (1,)})
