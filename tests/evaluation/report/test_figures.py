import numpy as np
import pytest
from studies import calibrator, frame, point, predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.curve import fit_calibration_curve
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.report import curves
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.figures import evaluation_figures, roc_figure

TEST = predictions(200, seed=9)
FOUND = evaluate(TEST, operating_point=point(), resamples=50)
CAPTION = Caption("demo-cnn@0123456789ab", "temperature 1.6", "test split, 200 cases")
NAMES = ["roc", "precision_recall", "reliability", "probability_histogram", "decision_curve"]


def words(figure):
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        legend = axes.get_legend()
        texts += [text.get_text() for text in legend.get_texts()] if legend else []
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return texts


@pytest.fixture(scope="module")
def figures():
    comparisons = {"diameter": 1 / (1 + np.exp(-TEST.frame["diameter_mm"].to_numpy() + 8))}
    return evaluation_figures(TEST, FOUND, caption=CAPTION, comparisons=comparisons)


def test_every_figure_says_model_and_calibration(figures):
    assert list(figures) == NAMES
    for figure in figures.values():
        said = " ".join(words(figure))
        assert "demo-cnn@0123456789ab" in said
        assert "temperature 1.6" in said


def test_figures_become_png_and_the_same_png_twice(figures):
    png = to_png(figures["roc"])
    assert png.startswith(b"\x89PNG")
    assert to_png(figures["roc"]) == png
    assert len(png) < 300_000


def test_numbers_on_the_figures_are_the_evaluations(figures):
    assert f"model: AUROC {FOUND['auroc']}" in words(figures["roc"])
    assert f"model: average precision {FOUND['average_precision']}" in words(figures["precision_recall"])
    assert f"prevalence: {FOUND.prevalence:.2f}" in words(figures["precision_recall"])
    assert any(text.startswith("diameter: 0.") for text in words(figures["roc"]))
    assert f"malignant ({FOUND.n_positive})" in words(figures["probability_histogram"])
    assert "before calibration" in words(figures["reliability"])
    assert {"treat all", "treat none"} <= set(words(figures["decision_curve"]))


def test_the_reliability_figure_has_the_bins_of_the_ece_and_hides_none(figures):
    figure = figures["reliability"]
    (after,) = figure.axes[0].containers
    assert len(after.lines[0].get_xdata()) == FOUND.calibrated.bins
    to_png(figure)  # lays it out
    (legend,) = figure.legends
    below = legend.get_window_extent().y1
    assert all(below <= axes.get_tightbbox().y0 for axes in figure.axes)


def test_the_reliability_figure_draws_the_calibration_curve_with_its_band(figures):
    (line,) = [each for each in figures["reliability"].axes[0].lines if each.get_label() == "calibration curve"]
    (band,) = [each for each in figures["reliability"].axes[0].collections if "band over patients" in each.get_label()]
    x, y = line.get_xdata(), line.get_ydata()
    assert (x[0], x[-1]) == pytest.approx(tuple(np.quantile(TEST.probabilities, [0.02, 0.98])))
    curve = fit_calibration_curve(TEST.labels, TEST.probabilities, TEST.patients, rng=np.random.default_rng(0))
    np.testing.assert_allclose(y, curve.at(x))
    edge = band.get_paths()[0].vertices
    assert edge[:, 1].min() < y.min()
    assert edge[:, 1].max() > y.max()


def test_equal_probabilities_have_a_figure_without_a_curve():
    same = Predictions.from_frame(frame(40, seed=2).assign(logit=0.3)).with_probabilities(calibrator().apply)
    found = evaluate(same, operating_point=point(), resamples=20)
    drawn = evaluation_figures(same, found, caption=CAPTION)["reliability"]
    assert found.undefined["ici"] == "calibration curve: all 40 probabilities are equal, so it is undefined"
    assert "calibration curve" not in words(drawn)


def test_one_class_has_no_figures():
    benign = Predictions.from_frame(frame(40).assign(label=0)).with_probabilities(calibrator().apply)
    assert evaluation_figures(benign, evaluate(benign, operating_point=point(), resamples=20), caption=CAPTION) == {}
    with pytest.raises(UndefinedMetricError, match="no resample has both classes"):
        roc_figure(benign.labels, benign.probabilities, benign.patients, caption=CAPTION, rng=np.random.default_rng(0))


def test_a_handful_of_cases_can_be_drawn():
    few = Predictions.from_frame(frame(6).assign(label=[0, 1, 0, 1, 0, 1])).with_probabilities(calibrator().apply)
    drawn = evaluation_figures(few, evaluate(few, operating_point=point(), resamples=20), caption=CAPTION)
    assert [to_png(figure)[:4] for figure in drawn.values()] == [b"\x89PNG"] * 5


def test_areas_of_curves_are_the_metrics():
    area = curves.roc(TEST.labels, TEST.probabilities)
    assert np.trapezoid(area.y, area.x) == pytest.approx(metrics.auroc(TEST.labels, TEST.probabilities))
    assert area.area == pytest.approx(metrics.auroc(TEST.labels, TEST.probabilities))


def test_the_roc_band_is_the_slow_bootstrap_of_the_curve():
    labels, scores, patients = TEST.labels, np.round(TEST.probabilities, 1), TEST.patients
    band = curves.roc_band(labels, scores, patients, rng=np.random.default_rng(0), resamples=2000)
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(each == patients) for each in np.unique(patients)]
    slow = []
    for _ in range(500):
        drawn = np.concatenate([members[each] for each in rng.integers(0, len(members), len(members))])
        curve = curves.roc(labels[drawn], scores[drawn])
        slow.append(np.interp(band.x, curve.x, curve.y))
    expected = np.quantile(slow, [0.025, 0.975], axis=0)
    assert np.abs(band.lower - expected[0]).mean() < 0.01
    assert np.abs(band.upper - expected[1]).mean() < 0.01


def test_reliability_points_average_to_the_prevalence():
    found = curves.reliability(TEST.labels, TEST.probabilities, TEST.patients, bins=10)
    assert found.y.mean() == pytest.approx(TEST.labels.mean())
    assert found.x.mean() == pytest.approx(TEST.probabilities.mean())
    assert ((found.lower <= found.y) & (found.y <= found.upper)).all()
