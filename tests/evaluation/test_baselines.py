import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from studies import frame

from pipeline.errors import UsageError
from pipeline.evaluation.baselines import fit_baseline

CASES = frame(200).assign(age=np.linspace(30, 80, 200))
COLUMNS = ["diameter_mm", "age"]


def test_the_baseline_is_scikit_learns_pipeline():
    found = fit_baseline(CASES, CASES["label"], COLUMNS).logits(CASES)
    reference = make_pipeline(StandardScaler(), LogisticRegression()).fit(CASES[COLUMNS].to_numpy(), CASES["label"])
    assert found == pytest.approx(reference.decision_function(CASES[COLUMNS].to_numpy()), abs=1e-9)


def test_missing_values_become_the_training_median():
    holes = CASES.assign(diameter_mm=CASES["diameter_mm"].mask(CASES.index % 5 == 0))
    fitted = fit_baseline(holes, CASES["label"], ["diameter_mm"])
    median = holes["diameter_mm"].median()
    blank, filled = pd.DataFrame({"diameter_mm": [None]}), pd.DataFrame({"diameter_mm": [median]})
    assert fitted.logits(blank) == pytest.approx(fitted.logits(filled))


def test_test_cases_change_nothing_that_was_fitted():
    fitted = fit_baseline(CASES.head(100), CASES["label"].head(100), COLUMNS)
    altered = CASES.assign(diameter_mm=CASES["diameter_mm"].where(CASES.index < 100, 999.0))
    assert fit_baseline(altered.head(100), CASES["label"].head(100), COLUMNS) == fitted


def test_a_column_on_the_log_scale_enters_as_its_logarithm_and_only_it():
    cases = CASES.assign(diameter_mm=np.abs(CASES["diameter_mm"]) + 0.1)
    fitted = fit_baseline(cases, cases["label"], COLUMNS, log_columns=["diameter_mm", "elsewhere"])
    by_hand = cases.assign(diameter_mm=np.log(cases["diameter_mm"]))
    assert fitted.logits(cases) == pytest.approx(fit_baseline(by_hand, cases["label"], COLUMNS).logits(by_hand))
    with pytest.raises(UsageError, match="'diameter_mm' holds -1, which has no logarithm"):
        fit_baseline(cases.assign(diameter_mm=-1.0), cases["label"], COLUMNS, log_columns=["diameter_mm"])


def test_a_constant_column_says_nothing_and_breaks_nothing():
    fitted = fit_baseline(CASES.assign(age=50), CASES["label"], COLUMNS)
    assert fitted.coefficients[1] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("cases", "labels", "columns", "message"),
    [
        (CASES, CASES["label"], [], "no columns"),
        (CASES, CASES["label"], ["volume"], "no column 'volume'"),
        (CASES, CASES["label"], ["site"], "'site' is not numeric"),
        (CASES, np.zeros(200), ["age"], "all 200 cases are benign"),
        (CASES, [0, 1], ["age"], "200 rows for 2 labels"),
        (CASES.assign(age=None), CASES["label"], ["age"], "'age' holds no number"),
        (CASES.assign(age=np.inf), CASES["label"], ["age"], "is infinite"),
    ],
)
def test_a_baseline_that_cannot_be_fitted_is_refused(cases, labels, columns, message):
    with pytest.raises(UsageError, match=message):
        fit_baseline(cases, labels, columns)
