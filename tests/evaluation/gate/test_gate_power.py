"""What the gate says it could show, beside what simulated equal models show."""

import numpy as np
import pytest
from scipy import stats

from pipeline.config.gate_policy import GatePolicy
from pipeline.evaluation.gate.power import (
    chances,
    expected_spread,
    margins_within_reach,
    patients_to_pass,
    power_condition,
)
from pipeline.evaluation.gate.records import GateLook, LockedCases

POLICY = GatePolicy()
FIRST = GateLook(1, POLICY.alpha)


def cases(malignant, benign):
    return LockedCases(0, 0, 0, 0, malignant, benign)


def test_spread_is_that_of_simulated_equal_models():
    """Differences of AUROC and of shares, of binormal scores with an AUROC of 0.85 that are correlated by 0.8."""
    rng, count, studies = np.random.default_rng(0), 40, 5000
    apart = np.sqrt(2) * stats.norm.ppf(0.85)

    def scores(mean):  # (2 models, studies, count)
        return (
            mean
            + np.sqrt(0.8) * rng.normal(size=(1, studies, count))
            + np.sqrt(0.2) * rng.normal(size=(2, studies, count))
        )

    malignant, benign = scores(apart), scores(0.0)
    ranked = [(pos[:, :, None] > neg[:, None, :]).mean(axis=(1, 2)) for pos, neg in zip(malignant, benign, strict=True)]
    called = [(group >= apart - stats.norm.ppf(0.9)).mean(axis=2) for group in (malignant, benign)]
    differences = [first - second for first, second in (ranked, *called)]
    spread = expected_spread(POLICY)
    expected = [2 * spread.auroc / count, spread.sensitivity / count, spread.specificity / count]
    assert np.var(differences, axis=1) == pytest.approx(expected, rel=0.08)


def test_identical_scores_have_no_spread_and_foreign_ones_the_most():
    alike, foreign = (expected_spread(GatePolicy(expected_correlation=rho)) for rho in (0.9999, 0.0))
    assert alike.auroc < 1e-5
    assert foreign.sensitivity == pytest.approx(2 * 0.9 * 0.1, rel=1e-4)


def test_chance_is_that_of_simulated_intervals():
    rng, spread = np.random.default_rng(1), expected_spread(POLICY)
    policy = GatePolicy(sensitivity_margin=0.06, auroc_margin=0.03)
    found = chances(policy, FIRST, malignant=150, benign=400)
    only = rng.binomial(150, spread.sensitivity, size=40_000)
    better = rng.binomial(only, 0.5)
    reach = stats.norm.ppf(1 - FIRST.alpha) * np.sqrt(only + 1) / 152
    assert found.sensitivity == pytest.approx(np.mean((2 * better - only) / 152 - reach > -0.06), abs=0.03)
    error = np.sqrt(spread.auroc * (1 / 150 + 1 / 400))
    passing = rng.normal(0, error, 40_000) - stats.norm.ppf(1 - FIRST.alpha) * error > -0.03
    assert found.auroc == pytest.approx(np.mean(passing), abs=0.01)
    product = found.auroc * found.sensitivity * found.specificity
    assert found.together == pytest.approx(product)
    both = chances(policy, FIRST, malignant=150, benign=400, references=2)
    assert both.together == pytest.approx(product**2)


def test_patients_that_are_named_are_enough_and_hardly_more():
    for references in (1, 2):
        wanted = patients_to_pass(POLICY, FIRST, malignant=200, benign=300, references=references, power=0.8)
        named = dict(zip(("malignant", "benign"), wanted, strict=True))
        assert 0.8 <= chances(POLICY, FIRST, **named, references=references).together < 0.83
    assert patients_to_pass(POLICY, FIRST, malignant=9000, benign=9000) == (9000, 9000)
    # Only the class that is short is raised.
    assert patients_to_pass(POLICY, FIRST, malignant=200, benign=20_000)[1] == 20_000


def test_margins_that_are_named_are_kept():
    margins = margins_within_reach(POLICY, FIRST, malignant=200, benign=300, power=0.8)
    names = ("auroc_margin", "sensitivity_margin", "specificity_margin")
    wide = POLICY.model_copy(update=dict(zip(names, margins.tolist(), strict=True)))
    assert chances(wide, FIRST, malignant=200, benign=300).together == pytest.approx(0.8)


def test_the_condition_names_power_patients_and_margins():
    condition = power_condition(POLICY, FIRST, cases(200, 300), references=1)
    assert not condition.holds
    found = chances(POLICY, FIRST, malignant=200, benign=300)
    said = f"with probability {found.auroc:.2f}, {found.sensitivity:.2f} and {found.specificity:.2f}, and all with at"
    assert condition.finding.startswith("look 1 at these patients, at a risk of 0.03: an equal challenger would pass")
    assert said in condition.finding
    wanted = patients_to_pass(POLICY, FIRST, malignant=200, benign=300)
    assert f"about {wanted[0]:,} patients with malignant and {wanted[1]:,} with benign cases" in condition.finding
    assert "of 0.04, 0.071, 0.087; or least_power: 0" in condition.finding
    # The patients that are missing are new ones, so the first look's risk is theirs.
    later = power_condition(POLICY, GateLook(5, 0.05), cases(200, 300), references=1).finding
    assert f"about {wanted[0]:,} patients" in later
    assert "against champion and anchor" in power_condition(POLICY, FIRST, cases(9999, 9999), references=2).finding


def test_the_condition_holds_from_the_power_asked_for():
    policy = GatePolicy(sensitivity_margin=0.1, specificity_margin=0.1, auroc_margin=0.1)
    power = chances(policy, FIRST, malignant=80, benign=90).together
    for least, holds in ((power, True), (power + 1e-6, False)):
        asked = policy.model_copy(update={"least_power": least})
        assert power_condition(asked, FIRST, cases(80, 90), references=1).holds is holds
    assert not power_condition(policy, FIRST, cases(1, 90), references=1).holds
