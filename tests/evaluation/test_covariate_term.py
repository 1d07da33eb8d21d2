"""What columns add to a logit: the regression it stands for, and data that carry none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.errors import UsageError
from pipeline.evaluation.calibration.fit import fit_platt
from pipeline.evaluation.covariates import Covariate, CovariateTerm, fit_covariate_term


@pytest.fixture
def study():
    """Logits and diameters that each say half of what there is, and labels of two findings; one is partly unknown."""
    rng = np.random.default_rng(0)
    seen, size = rng.normal(0, 1, (2, 2000))
    truth = rng.random(2000) < 1 / (1 + np.exp(-(2 * seen + 2 * size)))
    labels = np.stack([truth, rng.random(2000) < 1 / (1 + np.exp(-seen))], axis=1).astype(float)
    labels[::3, 1] = np.nan
    logits = np.stack([40 * seen - 7, 3 * seen], axis=1)  # a network's logits may be far too sure
    return logits, labels, np.exp(2 + 0.5 * size)[:, None]


def test_with_platt_it_is_the_logistic_regression_on_both(study):
    logits, labels, diameters = study
    term = fit_covariate_term(logits, labels, diameters, {"diameter_mm": "log"})
    joined = logits[:, 0] + term.logits(diameters)[:, 0]
    probabilities = fit_platt(joined, labels[:, 0]).apply(joined)
    both = np.stack([logits[:, 0] / 40, np.log(diameters[:, 0])], axis=1)
    expected = LogisticRegression(C=np.inf).fit(both, labels[:, 0]).predict_proba(both)[:, 1]
    np.testing.assert_allclose(probabilities, expected, atol=0.005)  # its penalty is light, not absent
    gain = roc_auc_score(labels[:, 0], joined) - roc_auc_score(labels[:, 0], logits[:, 0])
    assert gain > 0.05


def test_each_finding_has_its_own_weight_from_the_cases_where_it_is_known(study):
    logits, labels, diameters = study
    weights = fit_covariate_term(logits, labels, diameters, {"diameter_mm": "log"}).columns["diameter_mm"].weights
    assert weights[0] == pytest.approx(40, rel=0.15)  # as much as one standard deviation of what the image says
    assert abs(weights[1]) < 0.8
    known = np.isfinite(labels[:, 1])
    alone = fit_covariate_term(logits[known], labels[known], diameters[known], {"diameter_mm": "log"})
    assert alone.columns["diameter_mm"].weights[1] == pytest.approx(weights[1], abs=0.01)


def test_the_penalty_of_few_cases_leaves_the_intercept_alone():
    rng = np.random.default_rng(1)
    labels = (np.arange(40) < 5).astype(float)
    logits, sizes = rng.normal(labels, 1.0), rng.normal(labels, 1.0)
    term = fit_covariate_term(logits[:, None], labels[:, None], sizes[:, None], {"size": "linear"})
    standard = np.stack([(column - column.mean()) / column.std() for column in (logits, sizes)], axis=1)
    (slope, other), *_ = LogisticRegression(C=1.0, tol=1e-10).fit(standard, labels).coef_
    assert term.columns["size"].weights[0] == pytest.approx(other / slope * logits.std(), rel=1e-3)


def test_a_case_at_the_means_keeps_its_logit():
    term = CovariateTerm(
        {
            "diameter_mm": Covariate(scale="log", mean=np.log(10.0), deviation=0.5, weights=(2.0,)),
            "age": Covariate(scale="linear", mean=60.0, deviation=10.0, weights=(-1.0,)),
        }
    )
    values = np.array([[10.0, 60.0], [10.0 * np.exp(0.5), 60.0], [10.0, 70.0]])
    np.testing.assert_allclose(term.logits(values), [[0.0], [2.0], [-1.0]], atol=1e-12)
    assert term.describe() == ["log diameter_mm +2/SD", "age -1/SD"]


def test_without_columns_nothing_is_added(study):
    logits, labels, _ = study
    term = fit_covariate_term(logits, labels, np.empty((2000, 0)), {})
    assert term == CovariateTerm()
    assert (logits + term.logits(np.empty((2000, 0))) == logits).all()


@pytest.mark.parametrize("value", [0.0, 50.0, -3e14])
def test_a_column_that_does_not_vary_is_refused(study, value):
    logits, labels, diameters = study
    with pytest.raises(UsageError, match=r"data.covariates: 'age' is .* in all 2000 calibration cases; leave it out"):
        fit_covariate_term(logits, labels, np.full_like(diameters, value), {"age": "linear"})


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_beside_a_network_that_says_nothing_the_columns_rank(study, factor):
    logits, labels, diameters = study
    term = fit_covariate_term(factor * logits, labels, diameters, {"diameter_mm": "log"})
    joined = factor * logits[:, 0] + term.logits(diameters)[:, 0]
    alone = roc_auc_score(labels[:, 0], diameters[:, 0])
    # The least slope of a logit that points the wrong way costs some.
    assert roc_auc_score(labels[:, 0], joined) > alone - 0.05


def test_a_column_that_separates_the_classes_is_fitted_with_a_finite_weight(study):
    logits, labels, _ = study
    term = fit_covariate_term(logits[:, :1], labels[:, :1], labels[:, :1], {"leak": "linear"})
    assert 0 < term.columns["leak"].weights[0] < 1e4


@given(st.floats(0.01, 100), st.floats(-50, 50), st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_the_scales_of_logits_and_columns_do_not_matter(slope, offset, unit):
    rng = np.random.default_rng(1)
    logits, values = rng.normal(0, 1, (200, 1)), np.exp(rng.normal(0, 1, (200, 1)))
    labels = (rng.random((200, 1)) < 1 / (1 + np.exp(-logits - np.log(values)))).astype(float)
    plain = fit_covariate_term(logits, labels, values, {"d": "log"}).logits(values)
    other = fit_covariate_term(slope * logits + offset, labels, unit * values, {"d": "log"}).logits(unit * values)
    np.testing.assert_allclose(other / slope, plain, atol=1e-3)
