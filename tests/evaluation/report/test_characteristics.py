"""The table of characteristics: right numbers, and no cell that points at a patient."""

import csv

import numpy as np
import pandas as pd
import pytest
from studies import calibrator, frame

from pipeline.evaluation.predictions import Predictions, write_predictions
from pipeline.evaluation.report.characteristics import HIDDEN_COUNT, characteristics
from pipeline.jobs.evaluate_predictions import evaluate_predictions


def table(**columns):
    """Sixty cases of forty patients in two splits, every patient in one; patients 0 to 19 have two cases."""
    patients = np.r_[np.arange(40), np.arange(20)]
    made = pd.DataFrame({"patient_id": [f"p{number}" for number in patients], "label": patients % 2})
    made["split"] = np.where(patients % 4 == 0, "test", "train")
    for name, value in columns.items():
        made[name] = [value(number, case) for case, number in enumerate(patients)]
    return made.sort_values("split", ascending=False, kind="stable").reset_index(drop=True)


def rows_of(made, columns):
    found = characteristics(made, columns)
    assert found.groups == ("train", "test")
    return {(row.name, row.value): row.cells for row in found.rows}


def test_counts_shares_and_quartiles_are_those_of_each_split():
    made = table(diameter_mm=lambda number, case: float(number + 0.1 * case), sex=lambda number, case: "fm"[number % 2])
    found = rows_of(made, ["diameter_mm", "sex", "absent"])
    train = made[made["split"] == "train"]
    assert found["patients", ""] == ("30", "10")
    assert found["cases", ""] == ("45", "15")
    assert found["malignant", "cases"] == (f"{train['label'].sum()} (67 %)", "0 (0 %)")
    low, middle, high = np.quantile(train["diameter_mm"], [0.25, 0.5, 0.75])
    assert found["diameter_mm", "median (quartiles)"][0] == f"{middle:.3g} ({low:.3g} to {high:.3g})"
    # Sex is the patient's, so it is counted by patient though some have two cases.
    assert found["sex", "f (patients)"] == ("10 (33 %)", "10 (100 %)")
    assert found["sex", "m (patients)"] == ("20 (67 %)", "0 (0 %)")
    assert not any(name == "absent" for name, _ in found)


def test_a_column_that_differs_within_a_patient_is_counted_by_case():
    found = rows_of(table(site=lambda number, case: "north" if case < 40 else "south"), ["site"])
    assert found["site", "north (cases)"] == ("30 (67 %)", "10 (67 %)")
    assert found["site", "south (cases)"] == ("15 (33 %)", "5 (33 %)")


def test_missing_values_are_counted():
    made = table(
        age=lambda number, case: None if number % 3 == 0 else float(number),
        sex=lambda number, case: [None, "f"][number % 2],
    )
    found = rows_of(made, ["age", "sex"])
    assert found["age", "missing (patients)"] == ("10 (33 %)", "4 (40 %)")
    assert found["sex", "missing (patients)"] == ("10 (33 %)", "10 (100 %)")


def test_zero_and_one_are_kinds_and_other_numbers_are_not():
    found = rows_of(
        table(smoker=lambda number, case: number % 2, grade=lambda number, case: number % 3), ["smoker", "grade"]
    )
    assert found["smoker", "0 (patients)"] == ("10 (33 %)", "10 (100 %)")
    assert ("grade", "median (quartiles)") in found


def test_cells_of_one_or_two_patients_are_hidden_and_never_alone():
    """Scanner b has two test patients of 10: shown by the others' sum, were nothing else hidden."""
    made = table(scanner=lambda number, case: "b" if number in (4, 8, 1, 2, 3, 5) else "a" if number % 8 else "c")
    found = rows_of(made, ["scanner"])
    assert found["scanner", "b (patients)"] == ("4 (13 %)", HIDDEN_COUNT)
    others = [found["scanner", "a (patients)"][1], found["scanner", "c (patients)"][1]]
    assert others.count(HIDDEN_COUNT) == 1
    shown = next(cell for cell in others if cell != HIDDEN_COUNT)
    assert int(shown.split()[0]) <= 10 - 2 - 3


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_values_of_fewer_than_three_patients_are_not_named(patients):
    rare = {1, 2, 3}
    made = table(disease=lambda number, case: "rare" if number in list(rare)[:patients] else "common")
    names = [value for _, value in rows_of(made, ["disease"])]
    assert ("rare (patients)" in names) is (patients == 3)
    assert ("other values (patients)" in names) is (patients < 3)


def test_quartiles_need_ten_patients_and_missing_cells_three():
    made = table(age=lambda number, case: float(number) if number % 4 or number < 36 else None)
    found = rows_of(made, ["age"])
    assert found["age", "median (quartiles)"][1] == HIDDEN_COUNT  # nine test patients
    assert found["age", "missing (patients)"] == ("0 (0 %)", HIDDEN_COUNT)  # one of them
    assert found["age", "median (quartiles)"][0] != HIDDEN_COUNT


def test_free_text_is_not_shown():
    # Thirty comments of three cases each would be values of three patients, and still be comments.
    made = pd.concat([table()] * 3, ignore_index=True)
    made["patient_id"] = [f"p{number}" for number in range(len(made))]
    made["comment"] = [f"seen by Dr {number % 30}" for number in range(len(made))]
    found = characteristics(made, ["comment"])
    assert [row.value for row in found.rows if row.name == "comment"] == ["different values"]
    assert not any("Dr" in text for row in found.rows for text in (row.value, *row.cells))


def test_the_table_is_written_beside_the_report(tmp_path):
    parts = [frame(300, seed=1), frame(300, seed=2, split="calibration")]
    parts[1]["case_id"], parts[1]["patient_id"] = "c" + parts[1]["case_id"], "c" + parts[1]["patient_id"]
    made = Predictions.from_frame(pd.concat(parts, ignore_index=True).assign(comment="private"))
    write_predictions(made.with_probabilities(calibrator().apply), tmp_path / "p.parquet")
    evaluate_predictions(tmp_path / "p.parquet", tmp_path / "out")
    with open(tmp_path / "out" / "characteristics.csv", newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["characteristic", "value", "test split"]
    assert {row[0] for row in rows[1:]} == {"patients", "cases", "malignant", "site", "diameter_mm"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Characteristics</h2>" in page
    assert rows[2] == ["cases", "", "300"]
    assert "private" not in page + str(rows)
