"""Collapse in subgroups: found in the right one, seldom where there is none, and said where it cannot be seen."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import frame
from test_gate import contender

from pipeline.config.gate_policy import GatePolicy
from pipeline.evaluation.gate.subgroups import SubgroupTest, collapsed, no_collapse
from pipeline.evaluation.intervals.paired_difference import PairedDifference

POLICY = GatePolicy()


@pytest.fixture(scope="module")
def study():
    return frame(1500, seed=4)


@pytest.fixture(scope="module")
def champion(study):
    return contender(study)


def comparison(estimate, *, error=0.02, drop=0.1, members=None):
    difference = None if estimate is None else PairedDifference(estimate, estimate, error, 10_000, "m")
    return SubgroupTest("site", "north", "AUROC", np.ones(3, bool) if members is None else members, drop, difference)


def test_collapse_in_one_subgroup_is_named(study, champion):
    rng = np.random.default_rng(2)
    wide = study["diameter_mm"] >= 15
    shuffled = study["logit"].where(~wide, rng.permutation(study["logit"]))
    challenger = contender(study.assign(logit=shuffled))
    condition = no_collapse(challenger, champion, ["site", "diameter_mm"], policy=POLICY)
    assert condition.outcome == "refuted"
    falls = [line for line in condition.finding.split("; ") if "falls" in line]
    assert any(
        line.startswith("diameter_mm 15 and above: sensitivity falls, challenger less champion -0.") for line in falls
    )
    assert "comparisons, of AUROC and sensitivity in subgroups of site, diameter_mm; chance of any" in condition.finding


def test_equal_models_have_none(study, champion):
    condition = no_collapse(champion, champion, ["site"], policy=POLICY)
    assert (condition.outcome, condition.finding) == (
        "shown",
        "4 comparisons, of AUROC and sensitivity in subgroups of site; chance of any false alarm at most 0.05 (Holm)",
    )


def test_subgroups_that_cannot_be_judged_do_not_pass(study, champion):
    condition = no_collapse(champion, champion, [], policy=POLICY)
    assert (condition.outcome, condition.holds) == ("not shown", False)
    assert "has no subgroup column" in condition.finding
    alone = contender(study.assign(alone=[f"s{number}" for number in range(len(study))]))
    condition = no_collapse(alone, alone, ["alone"], policy=POLICY)
    assert condition.outcome == "not shown"
    assert "0 comparisons" in condition.finding
    assert "100 % of the cases by alone (limit 10 %)" in condition.finding


@pytest.mark.parametrize(("small", "outcome"), [(150, "shown"), (151, "not shown")])
def test_small_subgroups_are_named_and_only_few_cases_may_lie_in_them(study, small, outcome):
    """Of 1500 cases, 10 % may lie in subgroups too small to judge."""
    ward = np.where(np.arange(len(study)) < small, np.arange(len(study)) % 15, "large").astype(str)
    table = study.assign(ward=ward)
    model = contender(table)
    condition = no_collapse(model, model, ["ward"], policy=POLICY)
    assert condition.outcome == outcome
    assert (
        "not judged, too small to see a fall of 0.1 in AUROC or 0.15 in sensitivity: ward 0 (AUROC)"
        in condition.finding
    )


def test_too_few_to_see_the_stated_fall_is_not_judged(study):
    """Two small sites: AUROC could be judged where two models answer alike, sensitivity could not."""
    few = study.drop_duplicates("patient_id").head(70)
    model = contender(few.reset_index(drop=True))
    condition = no_collapse(model, model, ["site"], policy=POLICY)
    assert condition.outcome == "not shown"
    assert "(sensitivity)" in condition.finding
    assert "(AUROC)" not in condition.finding
    easier = POLICY.model_copy(update={"subgroup_sensitivity_drop": 0.4})
    assert no_collapse(model, model, ["site"], policy=easier).outcome == "shown"


def test_each_statistic_has_its_own_fall(study):
    rng = np.random.default_rng(0)
    other, champion = (
        contender(study.assign(logit=study["logit"] + 0.3 * rng.normal(size=len(study)))) for _ in range(2)
    )
    assert no_collapse(other, champion, ["site"], policy=POLICY).outcome == "shown"
    for key, what in (("subgroup_auroc_drop", "AUROC"), ("subgroup_sensitivity_drop", "sensitivity")):
        policy = POLICY.model_copy(update={key: 0.001})
        condition = no_collapse(other, champion, ["site"], policy=policy)
        assert condition.outcome == "not shown"
        assert f"in sensitivity: site north ({what}), site south ({what}), 100 %" in condition.finding


def test_a_collapse_in_a_small_subgroup_is_a_collapse_and_not_too_little_to_say(study):
    parts = [part.head(12 if label else 30) for label, part in study.drop_duplicates("patient_id").groupby("label")]
    few = pd.concat(parts, ignore_index=True).assign(site="north")
    turned = contender(few.assign(logit=-few["logit"] - 3.0))
    condition = no_collapse(turned, contender(few), ["site"], policy=POLICY)
    assert condition.outcome == "refuted"
    assert condition.finding.startswith("site north: AUROC falls, challenger less champion -0.")
    assert "not judged" not in condition.finding


def test_whether_a_subgroup_can_be_judged_depends_on_how_many_there_are(study):
    """16 malignant patients, answered alike by both: enough for one comparison (0.83), not for one of four (0.58)."""
    alone = study.drop_duplicates("patient_id").groupby(["site", "label"])
    parts = [part.head(16 if label else 60) for (_, label), part in alone]
    model = contender(pd.concat(parts, ignore_index=True))
    condition = no_collapse(model, model, ["site"], policy=POLICY)
    assert condition.outcome == "not shown"
    assert "in sensitivity: site north (sensitivity), site south (sensitivity), 100 % of the cases" in condition.finding


def test_power_is_that_of_simulated_falls():
    rng = np.random.default_rng(0)
    for error, drop, alpha in ((0.03, 0.1, 0.01), (0.01, 0.1, 0.05)):
        estimates = rng.normal(-drop, error, 50_000)
        seen = (estimates <= -drop / 2) & (stats.norm.cdf(estimates / error) <= alpha)
        assert comparison(0.0, error=error, drop=drop).power(alpha) == pytest.approx(np.mean(seen), abs=0.01)
    assert comparison(0.0, error=0.0).power(0.05) == 1.0
    assert comparison(None).power(0.05) == 0.0


def test_holm_steps_down_and_stops():
    """Of p-values 0.009, 0.02 and 0.04, Holm at 0.05 rejects all that Bonferroni does, and 0.02 and 0.04 too."""
    by_p = [comparison(0.02 * stats.norm.ppf(p), drop=0.01) for p in (0.04, 0.009, 0.02)]
    assert collapsed(by_p, alpha=0.05) == [by_p[1], by_p[2], by_p[0]]
    stopped = [comparison(0.02 * stats.norm.ppf(p), drop=0.01) for p in (0.04, 0.009, 0.03)]
    assert collapsed(stopped, alpha=0.05) == [stopped[1]]
    assert collapsed([comparison(0.02 * stats.norm.ppf(0.02), drop=0.01) for _ in range(3)], alpha=0.05) == []


def test_half_the_stated_fall_must_be_seen():
    assert collapsed([comparison(-0.05, error=0.001)], alpha=0.05)
    assert not collapsed([comparison(-0.0499, error=0.001)], alpha=0.05)


def test_false_alarms_stay_below_the_stated_chance():
    """Six subgroups whose differences are noise: the family of comparisons errs in 5 % of studies at most."""
    rng = np.random.default_rng(5)
    alarms = [
        bool(collapsed([comparison(fall, error=0.1, drop=0.1) for fall in rng.normal(0, 0.1, 6)], alpha=0.05))
        for _ in range(3000)
    ]
    assert 0.035 < np.mean(alarms) < 0.062
