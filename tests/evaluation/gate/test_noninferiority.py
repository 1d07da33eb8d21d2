"""The gate's comparisons: three outcomes, margins and levels, and how many patients would decide."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import point

from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gate.noninferiority import Claim, not_inferior, outcome_of, times_as_many
from pipeline.evaluation.gate.records import Contender, GateLook
from pipeline.evaluation.intervals.paired_difference import PairedDifference, paired_auroc, paired_proportion, weighted
from pipeline.evaluation.predictions import Predictions

POLICY = GatePolicy(auroc_margin=0.04, sensitivity_margin=0.05, specificity_margin=0.06, referred_margin=0.07)
FIRST = GateLook(1, POLICY.alpha)
PATIENTS = 400
LABELS = np.arange(PATIENTS) % 2
ZONE = ReferZone(0.9, 0.4, 0.6, 100, 100, (0.8, 0.95), (0.8, 0.95))  # between, a case is typical of both


def contender(probabilities, *, zone=None, threshold=0.5):
    table = pd.DataFrame(
        {
            "case_id": [f"c{number}" for number in range(PATIENTS)],
            "patient_id": [f"p{number}" for number in range(PATIENTS)],
            "split": "test",
            "label": LABELS,
            "logit": 0.0,
            "probability": probabilities,
        }
    )
    predictions = Predictions.from_frame(table)
    return Contender(predictions, evaluate(predictions, operating_point=point(threshold), resamples=20), zone)


def found(challenger, champion, *, policy=POLICY, at=FIRST, title="champion"):
    return {each.name: each for each in not_inferior(challenger, champion, policy=policy, at=at, title=title)}


BASE = np.where(LABELS == 1, 0.8, 0.2) + np.linspace(-0.1, 0.1, PATIENTS)


def with_wrong(label, cases):
    """Probabilities that decide so many cases of one label wrongly, whoever is right on the others."""
    changed = BASE.copy()
    changed[np.flatnonzero(label == LABELS)[:cases]] = 0.3 if label else 0.7
    return changed


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [
        (-0.049, 0.1, "shown"),
        (-0.049, -0.01, "shown"),
        (-0.05, 0.1, "not shown"),
        (-0.2, -0.05, "not shown"),
        (-0.2, -0.051, "refuted"),
    ],
)
def test_an_interval_says_one_of_three_things(lower, upper, outcome):
    assert outcome_of(lower, upper, 0.05) == outcome


@pytest.mark.parametrize(
    ("estimate", "outcome", "says"),
    [
        (0.0, "shown", "; not inferior: shown (all above -0.05)"),
        (-0.2, "refuted", "; inferior: shown (all below -0.05)"),
        (
            -0.04,
            "not shown",
            "must lie above -0.05; it is worse, by how much is uncertain); if the two are equal, about ",
        ),
        (-0.02, "not shown", "must lie above -0.05; too uncertain to say); if the two are equal, about "),
    ],
)
def test_a_claim_says_which_and_what_would_decide(estimate, outcome, says):
    claim = Claim("AUROC not worse", 0.05, "a less b", ((100, "patients with x"), (50, "patients with y")))
    gain = PairedDifference(estimate, estimate, 0.02, 99, "made up")
    condition = claim.judge(lambda: gain, FIRST)
    assert (condition.outcome, condition.holds) == (outcome, outcome == "shown")
    reach = stats.t.ppf(1 - FIRST.alpha, 99) * 0.02
    limits = f"a less b: {estimate:.3f} ({estimate - reach:.3f} to {estimate + reach:.3f}) at 93.92 %"
    assert condition.finding.startswith(limits)
    assert says in condition.finding
    if outcome == "not shown":
        assert "about 119 patients with x (here 100) and 60 patients with y (here 50), whom no" in condition.finding


def test_what_would_decide_is_said_of_patients_at_whom_nobody_has_looked():
    gain = PairedDifference(-0.02, -0.02, 0.02, 99, "made up")
    said = {
        number: Claim("n", 0.05, "c", ((100, "patients"),)).judge(lambda: gain, GateLook(number, 0.05)).finding
        for number in (1, 5)
    }
    wanted = ["about 119 patients (here 100)" in each for each in said.values()]
    assert wanted == [True, True]


def test_what_is_undefined_is_not_shown():
    def undefined():
        raise UndefinedMetricError("too few")

    condition = Claim("n", 0.05, "c", ((1, "p"),)).judge(undefined, FIRST)
    assert (condition.outcome, condition.finding) == ("not shown", "cannot be judged: too few; give more cases")


def test_so_many_times_the_patients_show_an_equal_model_with_the_stated_probability():
    error, margin, alpha, power = 0.03, 0.02, 0.03, 0.8
    smaller = error / np.sqrt(times_as_many(error, margin=margin, alpha=alpha, power=power))
    passing = stats.norm.sf(-margin + stats.norm.ppf(1 - alpha) * smaller, scale=smaller)
    assert passing == pytest.approx(power)


@pytest.mark.parametrize(
    ("name", "label", "wrong"),
    [("sensitivity not worse", 1, 1), ("specificity not worse", 0, 2)],
)
def test_each_share_has_its_own_margin_and_its_own_cases(name, label, wrong):
    def outcomes(cases):
        conditions = found(contender(with_wrong(label, cases)), contender(BASE))
        other = next(key for key in conditions if "ity not worse" in key and key != name)
        assert conditions[other].outcome == "shown"
        return conditions[name].outcome

    assert [outcomes(cases) for cases in (0, wrong, 14, 60)] == ["shown", "shown", "not shown", "refuted"]
    # Better is no fault.
    assert found(contender(BASE), contender(with_wrong(label, 60)))[name].outcome == "shown"
    margins = {1: POLICY.sensitivity_margin, 0: POLICY.specificity_margin}
    finding = found(contender(with_wrong(label, 14)), contender(BASE))[name].finding
    assert finding.startswith("0.930 against the champion's 1.000, each at its own threshold; challenger less champion")
    assert f"must lie above -{margins[label]:g}" in finding
    who = "malignant" if label else "benign"
    assert f"patients with {who} cases (here 200), whom no look has seen" in finding
    assert finding.count("(here") == 1


def test_ranking_is_compared_at_the_policys_margin():
    rng = np.random.default_rng(0)
    weaker = np.clip(BASE + 0.45 * rng.normal(size=PATIENTS), 0, 1)
    assert found(contender(weaker), contender(BASE))["AUROC not worse"].outcome == "refuted"
    assert found(contender(BASE), contender(weaker))["AUROC not worse"].outcome == "shown"
    slightly = np.clip(BASE + 0.16 * rng.normal(size=PATIENTS), 0, 1)
    gain = paired_auroc(LABELS, slightly, BASE, np.arange(PATIENTS)).interval(level=FIRST.level)
    for margin, outcome in ((-gain.lower + 1e-6, "shown"), (-gain.lower - 1e-6, "not shown")):
        policy = POLICY.model_copy(update={"auroc_margin": margin})
        assert found(contender(slightly), contender(BASE), policy=policy)["AUROC not worse"].outcome == outcome


def test_a_later_look_asks_for_more():
    challenger, champion = contender(with_wrong(1, 3)), contender(BASE)
    by_look = [found(challenger, champion, at=GateLook(number, 0.05))["sensitivity not worse"] for number in (1, 30)]
    assert [each.outcome for each in by_look] == ["shown", "not shown"]
    assert "at 99.99 %" in by_look[1].finding


def referring(cases):
    """Base probabilities, of which so many of each class lie in the zone and are decided as before by the threshold."""
    changed = BASE.copy()
    for label, value in ((1, 0.55), (0, 0.45)):
        changed[np.flatnonzero(label == LABELS)[:cases]] = value
    return contender(changed, zone=ZONE)


def test_a_challenger_may_not_refer_many_more():
    champion = referring(20)
    outcomes = [found(referring(cases), champion)["refers no more"].outcome for cases in (0, 20, 33, 60)]
    assert outcomes == ["shown", "shown", "not shown", "refuted"]
    finding = found(referring(60), champion)["refers no more"].finding
    assert finding.startswith("0.300 against the champion's 0.100; champion less challenger, paired: -0.200 (-0.2")
    assert "all below -0.07" in finding
    # A champion without a zone refers nothing.
    assert found(referring(60), contender(BASE))["refers no more"].outcome == "refuted"
    assert found(contender(BASE), referring(60))["refers no more"].outcome == "shown"
    finding = found(contender(BASE), contender(BASE))["refers no more"].finding
    assert finding == "neither model has a refer zone"
    # Decisions at the threshold are the same, so nothing else is found.
    others = [each.outcome for each in found(referring(60), champion).values()]
    assert others == ["shown", "shown", "shown", "refuted"]


def test_the_share_referred_is_that_of_the_prevalence_of_use():
    changed = BASE.copy()
    changed[np.flatnonzero(LABELS == 1)[:80]] = 0.55  # of the malignant cases alone
    challenger = contender(changed, zone=ZONE)
    assert found(challenger, contender(BASE))["refers no more"].outcome == "refuted"
    rare = POLICY.model_copy(update={"prevalence": 0.02})
    condition = found(challenger, contender(BASE), policy=rare)["refers no more"]
    assert condition.outcome == "shown"
    assert "at a prevalence of 0.02: -0.008 (" in condition.finding


def test_weighted_differences_add_their_variances():
    first, second = PairedDifference(0.1, 0.09, 0.03, 20, "m"), PairedDifference(-0.2, -0.19, 0.04, 10, "m")
    both = weighted(first, second, share=0.25)
    assert both.estimate == pytest.approx(0.25 * 0.1 - 0.75 * 0.2)
    assert both.center == pytest.approx(0.25 * 0.09 - 0.75 * 0.19)
    assert both.standard_error**2 == pytest.approx((0.25 * 0.03) ** 2 + (0.75 * 0.04) ** 2)
    assert both.degrees == 10


def test_p_value_agrees_with_the_interval():
    rng = np.random.default_rng(3)
    first, second = rng.random(200) < 0.6, rng.random(200) < 0.75
    found = paired_proportion(first, second, np.arange(200))
    p_value = found.p_value_below_zero()
    assert 0.0001 < p_value < 0.05
    assert found.interval(level=1 - 2 * p_value).upper == pytest.approx(0.0, abs=1e-12)
    certain = PairedDifference(-0.1, -0.1, 0.0, 9, "m")
    assert certain.p_value_below_zero() == 0.0
    assert PairedDifference(0.0, 0.0, 0.0, 9, "m").p_value_below_zero() == 1.0


def test_cases_that_are_copies_add_nothing():
    rng = np.random.default_rng(4)
    first, second = rng.random(60) < 0.7, rng.random(60) < 0.8
    once = paired_proportion(first, second, np.arange(60))
    thrice = paired_proportion(np.repeat(first, 3), np.repeat(second, 3), np.repeat(np.arange(60), 3))
    assert (thrice.center, thrice.standard_error) == pytest.approx((once.center, once.standard_error))
    assert thrice.degrees == once.degrees == 59


def test_looks_spend_no_more_than_the_whole_risk():
    assert FIRST.alpha == pytest.approx(0.05 * 6 / np.pi**2)
    assert GateLook(3, 0.05).alpha == pytest.approx(FIRST.alpha / 9)
    assert GateLook(3, 0.05).level == pytest.approx(1 - 2 * FIRST.alpha / 9)
    assert GateLook(7, 0.05, 3).first == GateLook(1, 0.05)
    spent = sum(GateLook(number, 0.05).alpha for number in range(1, 100_000))
    assert 0.0499 < spent < 0.05
