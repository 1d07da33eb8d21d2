"""Sample sizes against published examples, and expected intervals against simulated studies."""

import math

import numpy as np
import pytest
from simulated_studies import point, simulate
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation import metrics
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.planning.expected_precision import (
    TARGETS,
    Assumed,
    JudgedSize,
    detectable_gaps,
    effective_cases,
    expected_intervals,
    half_width,
    patients_needed,
    riley_cases,
)
from pipeline.evaluation.planning.sample_size import (
    LogitDistribution,
    cases_for_auroc,
    cases_for_net_benefit,
    cases_for_observed_expected,
    cases_for_regression,
    cases_for_slope,
    class_separation,
    error_of_ratio,
    r_squared_of,
)


def test_validation_sizes_are_those_of_the_published_programs():
    """pmvalsampsize's tests (905, 4544, 4252: prevalence 0.018, C 0.8, logits N(-5, 2.5), a width of 1 for O/E).

    Its errors go in steps of 0.0001 and its logits are drawn, a million of them; here both are exact.
    """
    assert cases_for_observed_expected(0.2456, 0.018) == 905
    assert error_of_ratio(1.0) == pytest.approx(0.2456, abs=1e-4)
    assert cases_for_slope(0.1 / 1.96, LogitDistribution.normal(-5, 2.5)) == pytest.approx(4544, rel=0.005)
    assert cases_for_auroc(0.05 / 1.96, 0.8, 0.018) == 4252


def test_another_published_design_gives_the_same_sizes():
    """Prevalence 0.20, C 0.78, logits N(-1.75, 1.22) by pmvalsampsize 0.1.0: 1538, 2958 and 511."""
    assert cases_for_observed_expected(error_of_ratio(0.2), 0.2) == pytest.approx(1538, rel=0.005)
    assert cases_for_slope(0.1 / 1.96, LogitDistribution.normal(-1.75, 1.22)) == pytest.approx(2958, rel=0.002)
    assert cases_for_auroc(0.05 / 1.96, 0.78, 0.2) == 511


def test_net_benefit_takes_the_cases_of_a_hand_worked_design():
    """Sensitivity 0.6, specificity 0.88, threshold 0.8, prevalence 0.72 (section 3.4.1 of Riley et al., 2021).

    w = 0.28 / 0.72 * 4 = 1.5556; 0.24 / 0.72 + w^2 0.1056 / 0.28 + w^2 0.0144 / 0.2016 = 1.4188; over 0.051 squared.
    """
    found = cases_for_net_benefit(0.051, sensitivity=0.6, specificity=0.88, prevalence=0.72, threshold=0.8)
    assert found == 546


@pytest.mark.parametrize(
    ("parameters", "r_squared", "prevalence", "published"),
    [
        (24, 0.288, 0.174, (623, 668, 221)),
        (24, 0.55, 0.174, (255, 532, 221)),
        (36, 0.288, 0.174, (934, 1002, 221)),
        (24, 0.288, 0.25, (623, 583, 289)),
    ],
)
def test_development_sizes_are_those_of_pmsampsize(parameters, r_squared, prevalence, published):
    """Its second criterion rounds the largest R squared to two digits, which is worth 1.3 % here."""
    found = cases_for_regression(parameters, r_squared=r_squared, prevalence=prevalence)
    assert (found.shrinkage, found.overall_risk) == (published[0], published[2])
    assert found.optimism == pytest.approx(published[1], rel=0.013)
    assert found.cases == max(found.shrinkage, found.optimism, found.overall_risk)


def test_an_r_squared_that_the_prevalence_does_not_allow_is_refused():
    with pytest.raises(UsageError, match=r"r_squared: 0.7 is not between 0 and 0.603"):
        cases_for_regression(3, r_squared=0.7, prevalence=0.174)


def test_r_squared_of_an_auroc_is_the_published_one_and_that_of_a_drawn_study():
    """Riley, Van Calster and Collins (2021): C 0.89 at prevalence 0.174 stands for about 0.288."""
    assert r_squared_of(0.89, 0.174) == pytest.approx(0.288, abs=0.005)
    rng = np.random.default_rng(0)
    labels = (rng.random(200_000) < 0.3).astype(int)
    logits = rng.normal(labels * class_separation(0.8))
    fit = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
    risk = fit.predict_proba(logits[:, None])[:, 1]
    gain = np.mean(np.log(np.where(labels == 1, risk, 1 - risk))) - (
        labels.mean() * np.log(labels.mean()) + (1 - labels.mean()) * np.log(1 - labels.mean())
    )
    assert r_squared_of(0.8, 0.3) == pytest.approx(1 - math.exp(-2 * gain), abs=0.005)


def test_logits_of_an_auroc_have_it_and_are_calibrated():
    found = LogitDistribution.of_auroc(0.83, 0.3)
    risk = 1 / (1 + np.exp(-found.logits))
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.weights @ risk == pytest.approx(0.3, abs=1e-9)
    weights = np.concatenate([found.weights * risk, found.weights * (1 - risk)])
    labels = np.repeat([1, 0], risk.size)
    area = roc_auc_score(labels, np.tile(found.logits, 2), sample_weight=weights)
    assert area == pytest.approx(0.83, abs=1e-4)
    with pytest.raises(UsageError, match=r"auroc: 0\.5 is not between 0.5 and 1"):
        class_separation(0.5)


def test_alike_cases_are_worth_fewer():
    assert effective_cases([1, 1, 1], alike=0.5) == 3
    assert effective_cases([4, 4], alike=1.0) == 2
    assert effective_cases([4, 4], alike=0.5) == pytest.approx(8 / 2.5)
    assert effective_cases([1, 3], alike=1.0) == pytest.approx(4 / 2.5)  # a case meets 2.5 cases: (1 + 9) / 4
    size = JudgedSize.of(["a", "a", "b", "c", "c"], [1, 0, 0, 1, 1], alike=1.0)
    assert (size.patients, size.malignant_patients, size.benign_patients) == (3, 2, 2)
    assert (size.malignant, size.benign) == (pytest.approx(3 / (5 / 3)), 2)
    assert size.prevalence == 0.6
    assert size.scaled(2).benign == 4
    assert size.scaled(2).prevalence == 0.6
    with pytest.raises(UndefinedMetricError, match="all of one class"):
        JudgedSize.of(["a"], [1], alike=0.3)


def independent(malignant, benign):
    ids = [str(number) for number in range(malignant + benign)]
    return JudgedSize.of(ids, [1] * malignant + [0] * benign, alike=0.3)


def test_patients_needed_are_the_fewest_that_reach_the_aim():
    size, assumed = independent(60, 100), Assumed()
    for name, target in TARGETS.items():
        needed = patients_needed(size, assumed, name, target)
        widths = [
            half_width(expected_intervals(size.scaled(count / 160), assumed)[name]) for count in (needed, needed - 1)
        ]
        assert widths[0] <= target < widths[1]


def test_what_riley_asks_for_gives_the_widths_that_riley_asks_for():
    """With so many independent cases the expected intervals are as narrow as their criteria say."""
    assumed = Assumed(auroc=0.8)
    for name, cases in riley_cases(assumed, 0.25).items():
        if name in ("calibration_slope", "auroc"):
            size = independent(cases // 4, cases - cases // 4)
            target = {"calibration_slope": 0.1, "auroc": 0.05}[name]
            assert half_width(expected_intervals(size, assumed)[name]) == pytest.approx(target, rel=0.02)
    cases = riley_cases(assumed, 0.25)
    assert cases["observed_expected"] == cases_for_observed_expected(error_of_ratio(0.2), 0.25)
    # At a threshold of which 95 % of the malignant cases lie above, 1.96 standard errors are half of 0.2.
    rng = np.random.default_rng(3)
    labels = (rng.random(400_000) < 0.25).astype(int)
    distance = class_separation(0.8)
    logits = math.log(1 / 3) - distance**2 / 2 + rng.normal(labels * distance**2, distance)
    threshold = np.quantile(logits[labels == 1], 0.05)
    odds = math.exp(threshold)
    worth = (logits >= threshold) * np.where(labels == 1, 1.0, -odds)
    studies = zip(np.array_split(worth, 800), np.array_split(labels, 800), strict=True)
    drawn = np.var([part.sum() / truth.sum() for part, truth in studies]) * 500
    found = cases["net_benefit"] * (0.1 / 1.96) ** 2
    assert found == pytest.approx(drawn, rel=0.15)


def test_observed_over_expected_varies_as_in_drawn_studies():
    rng, distance, ratios = np.random.default_rng(6), class_separation(0.85), []
    for _ in range(1500):
        labels = (rng.random(300) < 0.3).astype(int)
        logits = math.log(3 / 7) - distance**2 / 2 + rng.normal(labels * distance**2, distance)
        ratios.append(labels.sum() / (1 / (1 + np.exp(-logits))).sum())
    expected = expected_intervals(independent(90, 210), Assumed())["observed_expected"]
    assert math.log(expected.upper) == pytest.approx(1.968 * np.std(np.log(ratios)), rel=0.08)
    assert expected.lower == pytest.approx(1 / expected.upper)


def test_a_gap_of_the_size_said_is_found_in_80_percent_of_studies():
    size, assumed = independent(200, 400), Assumed(auroc=0.85, sensitivity=0.8)
    gaps = detectable_gaps(size, assumed, share=0.25)
    rng, studies = np.random.default_rng(1), 4000
    first = rng.binomial(50, 0.8 - gaps["sensitivity"] / 2, studies) / 50
    rest = rng.binomial(150, 0.8 + gaps["sensitivity"] / 2, studies) / 150
    error = np.sqrt(0.8 * 0.2 / 50 + 0.8 * 0.2 / 150)
    assert np.mean(np.abs(rest - first) > 1.96 * error) == pytest.approx(0.8, abs=0.05)
    half = detectable_gaps(size, assumed, share=0.5)
    assert all(half[name] < gaps[name] for name in gaps)
    assert half["specificity"] == pytest.approx(
        2.8016 * math.sqrt(2 * assumed.specificity * (1 - assumed.specificity) / 200), rel=1e-3
    )
    assert half["auroc"] > 2.8 * math.sqrt(2) * half_width(expected_intervals(size, assumed)["auroc"]) / 2.1


def test_what_cannot_be_assumed_is_refused():
    with pytest.raises(UsageError, match=r"alike: 1\.5"):
        Assumed(alike=1.5)
    with pytest.raises(UsageError, match="sensitivity: 1 is not"):
        Assumed(sensitivity=1.0)


def compared(studies, patients, model, *, alike=0.3):
    """Mean half-width of ``evaluate`` in simulated studies, and the one expected beforehand."""
    large = simulate(np.random.default_rng(7), 20_000, **model)
    threshold = float(np.quantile(large.probabilities[large.labels == 1], 0.05))
    assumed = Assumed(auroc=metrics.auroc(large.labels, large.probabilities), alike=alike)
    found, expected = {}, {}
    for number in range(studies):
        study = simulate(np.random.default_rng([1, number]), patients, **model)
        judged = evaluate(study.predictions(), operating_point=point(threshold), resamples=100)
        size = JudgedSize.of(study.patients.astype(str).tolist(), study.labels.tolist(), alike=alike)
        before = expected_intervals(size, assumed)
        for name in (each for each in before if each in judged.intervals):
            found.setdefault(name, []).append(half_width(judged.intervals[name]))
            expected.setdefault(name, []).append(half_width(before[name]))
    return {name: (float(np.mean(expected[name])), float(np.mean(found[name]))) for name in found}


def test_expected_half_widths_are_what_studies_show():
    for name, (expected, shown) in compared(12, 215, {}).items():
        assert expected == pytest.approx(shown, rel=0.25), name


@pytest.mark.campaign
def test_expected_half_widths_are_what_studies_of_many_kinds_show():
    print("\n| patients | study | statistic | expected | shown |\n|---|---|---|---|---|")
    for patients in (110, 215):
        for title, model in (
            ("AUROC 0.94", {}),
            ("AUROC 0.94, cases more alike", {"within": 0.9}),
            ("AUROC 0.84", {"strength": 1.0}),
        ):
            for name, (expected, shown) in compared(60, patients, model).items():
                print(f"| {patients} | {title} | {name} | {expected:.3f} | {shown:.3f} |", flush=True)
                assert 0.85 * shown <= expected <= 1.35 * shown  # wider than shown is the safe side
