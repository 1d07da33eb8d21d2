import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from studies import frame

from pipeline.errors import CalibrationError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.calibrator import Calibrator, logit, sigmoid
from pipeline.evaluation.calibration.fit import fit_calibrator, fit_isotonic, fit_platt, fit_temperature

CASES = frame(300, seed=3)
LOGITS, LABELS = CASES["logit"].to_numpy(), CASES["label"].to_numpy()


def log_loss_at(temperature, logits, labels):
    return float(np.logaddexp(0.0, -(2 * labels - 1) * logits / temperature).mean())


FITTED = [
    fit_calibrator(method, LOGITS, LABELS, prior_offset=0.3) for method in ("temperature", "platt", "isotonic", "none")
]


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_temperature_is_the_direct_minimum_of_the_log_loss(scale):
    found = fit_temperature(LOGITS * scale, LABELS).parameters["temperature"]
    direct = optimize.minimize_scalar(
        log_loss_at, args=(LOGITS * scale, LABELS), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}
    )
    assert found == pytest.approx(direct.x, rel=1e-5)


def test_temperature_is_the_direct_minimum_with_logits_of_ten_thousand():
    # Large logits that are often wrong: their ranking says little, so a temperature in range needs them balanced.
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.5).astype(int)
    logits = rng.normal(size=4000) * 2 + (2 * labels - 1)
    logits[:2], labels[:2] = (1e4, -1e4), (1, 0)
    found = fit_temperature(logits, labels).parameters["temperature"]
    direct = optimize.minimize_scalar(
        log_loss_at, args=(logits, labels), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}
    )
    assert found == pytest.approx(direct.x, rel=1e-5)


def test_few_cases_of_a_class_are_no_hindrance_to_a_temperature():
    assert 0.05 <= fit_temperature([-2, -1, 0.5, 3, 1, -0.2], [0, 0, 0, 1, 1, 1]).parameters["temperature"] <= 20


def test_separable_data_are_refused_with_the_way_out():
    logits, labels = np.linspace(-3, 3, 40), (np.linspace(-3, 3, 40) > 0).astype(int)
    with pytest.raises(CalibrationError, match=r"outside \[0.05, 20\].*separate.*'isotonic'"):
        fit_temperature(logits, labels)
    with pytest.raises(CalibrationError, match="separate all 40 cases"):
        fit_platt(logits, labels)


def test_logits_that_hardly_differ_are_told_from_separable_ones():
    with pytest.raises(CalibrationError, match=r"outside \[0.05, 20\].*hardly differ.*'platt'"):
        fit_temperature(LOGITS / 1000, LABELS)
    assert fit_platt(LOGITS / 1000, LABELS).parameters["slope"] > 100


def test_a_network_that_ranks_backwards_is_refused():
    with pytest.raises(CalibrationError, match="do not rank malignant above benign"):
        fit_temperature(-LOGITS, LABELS)
    with pytest.raises(CalibrationError, match="ranks malignant below benign"):
        fit_platt(-LOGITS, LABELS)
    with pytest.raises(CalibrationError, match="flat"):
        fit_isotonic([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0])


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([0.0, 1.0, 2.0], [1, 1, 1], "all 3 cases are malignant"),
        ([0.0, 1.0, 2.0], [0, 0, 0], "all 3 cases are benign"),
        ([0.0, np.nan, 2.0], [0, 1, 1], "1 of 3 are not finite"),
        ([0.0, np.inf, 2.0], [0, 1, 1], "1 of 3 are not finite"),
        ([0.0, 1.0, 2.0], [0, 1, 2], "hold 2; expected 0 or 1"),
        ([0.0, 1.0], [0, 1, 1], "one value a case"),
        ([], [], "at least one case"),
    ],
)
def test_unusable_calibration_data_are_refused(method, logits, labels, message):
    with pytest.raises(CalibrationError, match=message):
        fit_calibrator(method, logits, labels)


def test_an_unknown_method_is_refused():
    with pytest.raises(CalibrationError, match="'beta' is not one of"):
        fit_calibrator("beta", LOGITS, LABELS)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_platt_is_scikit_learns_unpenalised_regression(scale):
    found = fit_platt(LOGITS * scale, LABELS).parameters
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(LOGITS[:, None], LABELS)
    assert found["slope"] * scale == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert found["intercept"] == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_isotonic_never_says_never():
    probabilities = fit_isotonic(LOGITS, LABELS).apply(np.array([-1e4, 1e4]))
    assert probabilities[0] >= 1 / 302
    assert probabilities[1] <= 301 / 302


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_last_bits_of_a_logit_move_no_isotonic_probability(scale):
    logits = np.concatenate([np.linspace(-2, 2, 40), [0.5, 0.5 + 1e-7]]) * scale  # the last two a hair apart
    labels = np.concatenate([np.linspace(-2, 2, 40) > 0.5, [0, 1]]).astype(int)
    calibrator = fit_isotonic(logits, labels)
    at = np.concatenate([logits, np.linspace(-3, 3, 10_001) * scale])
    assert np.abs(calibrator.apply(at * (1 + 1e-7)) - calibrator.apply(at)).max() < 1e-6
    assert metrics.auroc(labels, calibrator.apply(logits)) > 0.97


def test_the_prior_offset_undoes_class_weights():
    # Weighting malignant cases by w adds log(w) to the log odds.
    rng = np.random.default_rng(1)
    honest = rng.normal(size=20_000) * 2 - 1
    labels = (rng.random(honest.size) < sigmoid(honest)).astype(int)
    weighted = honest + np.log(4.0)
    corrected = fit_temperature(weighted, labels, prior_offset=np.log(4.0))
    assert corrected.parameters["temperature"] == pytest.approx(1.0, abs=0.05)
    assert abs(metrics.calibration_intercept(labels, corrected.apply(weighted))) < 0.05
    assert metrics.calibration_intercept(labels, fit_temperature(weighted, labels).apply(weighted)) < -0.2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50))
def test_every_calibrator_is_monotone_and_bounded(logits):
    ordered = np.sort(np.array(logits))
    for calibrator in FITTED:
        probabilities = calibrator.apply(ordered)
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        assert (np.diff(probabilities) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 20.0), st.integers(0, 2**32 - 1))
def test_temperature_never_changes_auroc(temperature, seed):
    rng = np.random.default_rng(seed)
    logits, labels = np.round(rng.normal(size=40), 2), np.r_[0, 1, rng.integers(0, 2, 38)]
    calibrator = Calibrator(method="temperature", parameters={"temperature": temperature})
    assert metrics.auroc(labels, calibrator.calibrated_logit(logits)) == metrics.auroc(labels, logits)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_saved_and_read_calibrators_give_the_same_bits(logits):
    for calibrator in FITTED:
        again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
        assert again == calibrator
        assert again.apply(logits).tobytes() == calibrator.apply(logits).tobytes()


def test_the_calibrated_logit_is_the_log_odds_of_the_probability():
    for calibrator in FITTED:
        if calibrator.method == "isotonic":
            with pytest.raises(CalibrationError, match="no calibrated logit"):
                calibrator.calibrated_logit(LOGITS)
        else:
            np.testing.assert_allclose(logit(calibrator.apply(LOGITS)), calibrator.calibrated_logit(LOGITS), rtol=1e-9)


def test_a_logit_that_is_not_finite_gets_no_probability():
    for calibrator in FITTED:
        with pytest.raises(CalibrationError, match="not finite"):
            calibrator.apply([0.0, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "'magic' is not one of"),
        ({"method": 3}, "3 is not one of"),
        ({"extra": 1}, "expected an object with exactly"),
        ({"prior_offset": None}, "prior_offset: None is not a finite number"),
        ({"prior_offset": True}, "prior_offset: True is not a finite number"),
        ({"parameters": {"temperature": float("nan")}}, "nan is not a finite number"),
        ({"parameters": {"temperature": "1.5"}}, "'1.5' is not a finite number"),
        ({"parameters": {"temperature": [1.5]}}, "is not a finite number"),
        ({"parameters": {"temperature": 0.0}}, "outside"),
        ({"parameters": {"slope": 1.0}}, "needs exactly"),
        ({"parameters": []}, "expected an object"),
        ({"method": "platt", "parameters": {"slope": -1.0, "intercept": 0.0}}, "turn the ranking round"),
        ({"method": "isotonic", "parameters": {"logits": [0.0, 1.0], "probabilities": [0.5]}}, "as many logits"),
        ({"method": "isotonic", "parameters": {"logits": [], "probabilities": []}}, "at least one"),
        (
            {"method": "isotonic", "parameters": {"logits": [1.0, 0.0], "probabilities": [0.2, 0.5]}},
            "must not decrease",
        ),
        (
            {"method": "isotonic", "parameters": {"logits": [0.0, 1.0], "probabilities": [0.5, 0.2]}},
            "must not decrease",
        ),
        ({"method": "isotonic", "parameters": {"logits": [0.0, 1.0], "probabilities": [0.0, 0.5]}}, "strictly between"),
    ],
)
def test_a_damaged_calibrator_is_refused(change, message):
    sound = {"method": "temperature", "parameters": {"temperature": 1.5}, "prior_offset": 0.0}
    assert Calibrator.from_json(sound).parameters == {"temperature": 1.5}
    with pytest.raises(CalibrationError, match=message):
        Calibrator.from_json({**sound, **change})


def test_sigmoid_and_logit_are_stable_and_inverse():
    assert sigmoid([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]
    values = np.linspace(-25, 25, 101)
    np.testing.assert_allclose(logit(sigmoid(values)), values, atol=1e-3)
    assert logit([0.0, 1.0]).tolist() == [-np.inf, np.inf]
    with pytest.raises(CalibrationError, match=r"outside \[0, 1\]"):
        logit([0.5, 1.1])


def test_every_calibrator_describes_itself_in_one_line():
    assert [calibrator.describe().split(",")[0].split()[0] for calibrator in FITTED] == [
        "temperature",
        "Platt",
        "isotonic",
        "uncalibrated",
    ]
    assert all("\n" not in calibrator.describe() for calibrator in FITTED)


def test_applying_a_calibrator_needs_no_scikit_learn():
    code = (
        "import sys, pipeline.evaluation.calibration.fit, pipeline.evaluation.decisions.operating_points\n"
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_in_this_room_imports_torch():
    code = (
        "import sys, pipeline.evaluation.report.page, pipeline.evaluation.report.figures\n"
        "print(sorted({'torch', 'monai', 'mlflow', 'lightning', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_shifting_and_scaling_commute_with_the_offset():
    for method, offset in itertools.product(("temperature", "platt"), (-1.0, 0.7)):
        plain = fit_calibrator(method, LOGITS, LABELS)
        shifted = fit_calibrator(method, LOGITS + offset, LABELS, prior_offset=offset)
        np.testing.assert_allclose(shifted.apply(LOGITS + offset), plain.apply(LOGITS), atol=1e-6)
