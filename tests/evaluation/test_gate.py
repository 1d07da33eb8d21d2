"""The gate's policy on made-up predictions: each condition alone, and that doubt is no pass."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import calibrator, frame, point

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation import gate
from pipeline.evaluation.calibrator import logit, sigmoid
from pipeline.evaluation.clustered import mean_difference_interval, paired_proportion_interval
from pipeline.evaluation.decision import Condition, decide, decision_text
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gate import Contender, GatePolicy, LockedCases, Parity, Standing, admission, contest
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.predictions import Predictions

STANDING = Standing("m version 1", "pathology", "real", "CT 3D", has_envelope=True)
COUNTS = LockedCases(100, 0, 0, 100, 40, 60)
POLICY = GatePolicy()


def contender(table, *, temperature=1.6, threshold=0.2):
    predictions = Predictions.from_frame(table).with_probabilities(calibrator(temperature).apply)
    return Contender(predictions, evaluate(predictions, operating_point=point(threshold), resamples=100))


def compare(challenger, champion, **settings):
    given = {
        "policy": POLICY,
        "lost": 0,
        "known_images": 0,
        "parity": Parity(0.0),
        "columns": ["site", "diameter_mm"],
        **settings,
    }
    return {each.name: each for each in contest(challenger, champion, **given)}


@pytest.fixture(scope="module")
def study():
    return frame(1500, seed=4)


@pytest.fixture(scope="module")
def champion(study):
    return contender(study)


def failed(conditions):
    return [name for name, each in conditions.items() if not each.holds]


def test_equal_models_pass_every_condition(champion):
    found = compare(champion, champion)
    assert failed(found) == []
    assert decide(list(found.values())).verdict == "promoted"


def test_admission_needs_no_label_and_asks_for_the_same_question():
    assert all(each.holds for each in admission(STANDING, STANDING, COUNTS, policy=POLICY))
    for change in (
        {"label_source": "x"},
        {"intensities": "simulated"},
        {"input_contract": "x"},
        {"has_envelope": False},
    ):
        conditions = admission(replace(STANDING, **change), STANDING, COUNTS, policy=POLICY)
        assert sum(not each.holds for each in conditions) == 1
    # A champion without an envelope does not bar a challenger that has one.
    bare = replace(STANDING, has_envelope=False)
    assert all(each.holds for each in admission(STANDING, bare, COUNTS, policy=POLICY))


@pytest.mark.parametrize(("malignant", "benign", "holds"), [(40, 40, True), (39, 400, False), (400, 39, False)])
def test_too_few_patients_of_a_class_is_a_refusal(malignant, benign, holds):
    counts = replace(COUNTS, patients_malignant=malignant, patients_benign=benign)
    assert admission(STANDING, STANDING, counts, policy=POLICY)[-1].holds is holds


def test_worse_ranking_fails_and_says_that_it_is_worse(study, champion):
    rng = np.random.default_rng(1)
    noisy = contender(study.assign(logit=study["logit"] + rng.normal(0, 4, len(study))))
    condition = compare(noisy, champion)["AUROC not worse"]
    assert not condition.holds
    assert condition.finding.endswith("it is worse")


def test_few_cases_are_no_proof_of_being_no_worse(study):
    rng = np.random.default_rng(1)
    few = study.head(60)
    other = contender(few.assign(logit=few["logit"] + rng.normal(0, 1.5, len(few))))
    condition = compare(other, contender(few))["AUROC not worse"]
    assert not condition.holds
    assert "too uncertain to say" in condition.finding


def test_overconfident_probabilities_fail_calibration_alone(study, champion):
    same_decisions = float(sigmoid(1.6 * logit(0.2)))
    overconfident = contender(study, temperature=1.0, threshold=same_decisions)
    assert failed(compare(overconfident, champion, columns=["site"])) == ["calibration"]


@pytest.mark.parametrize(("threshold", "what"), [(1e-6, "specificity"), (0.9, "sensitivity")])
def test_same_ranking_with_a_useless_threshold_is_refused(study, champion, threshold, what):
    found = compare(contender(study, threshold=threshold), champion, columns=["site"])
    assert f"{what} not worse" in failed(found)
    assert set(failed(found)) <= {f"{what} not worse", "no subgroup collapse"}
    finding = found[f"{what} not worse"].finding
    assert finding.startswith("0.")
    assert "each at its own threshold; challenger less champion, paired: -0." in finding
    assert finding.endswith("the lower limit must lie above -0.05; it is worse")


def test_a_lower_sensitivity_within_the_margin_passes_and_beyond_it_does_not(study, champion):
    slightly = compare(contender(study, threshold=0.21), champion)["sensitivity not worse"]
    assert slightly.holds
    assert not compare(contender(study, threshold=0.30), champion)["sensitivity not worse"].holds
    strict = replace(POLICY, sensitivity_margin=0.001)
    assert not compare(contender(study, threshold=0.21), champion, policy=strict)["sensitivity not worse"].holds


def test_equal_decisions_on_the_fewest_patients_are_just_enough_to_say():
    def finding(patients):
        study = frame(4000, seed=4).drop_duplicates("patient_id")
        table = pd.concat([part.head(patients) for _, part in study.groupby("label")], ignore_index=True)
        return compare(contender(table), contender(table))["specificity not worse"]

    assert finding(POLICY.patients_a_class).holds
    assert "too uncertain to say" in finding(POLICY.patients_a_class - 5).finding


def test_one_class_alone_cannot_be_judged(study):
    benign = contender(study[study["label"] == 0].reset_index(drop=True))
    condition = compare(benign, benign)["sensitivity not worse"]
    assert not condition.holds
    assert condition.finding.startswith("cannot be judged: ")


def test_collapse_in_one_subgroup_is_named(study, champion):
    rng = np.random.default_rng(2)
    wide = study["diameter_mm"] >= 15
    shuffled = study["logit"].where(~wide, rng.permutation(study["logit"]))
    condition = compare(contender(study.assign(logit=shuffled)), champion)["no subgroup collapse"]
    assert not condition.holds
    assert "diameter_mm 15 and above: sensitivity falls, challenger less champion -0." in condition.finding
    assert "site" not in condition.finding.split(";")[0]


def test_subgroups_that_cannot_be_judged_do_not_pass(study, champion):
    assert "has no subgroup column" in compare(champion, champion, columns=[])["no subgroup collapse"].finding
    lonely = contender(study.assign(alone=[f"s{number}" for number in range(len(study))]))
    condition = compare(lonely, lonely, columns=["alone"])["no subgroup collapse"]
    assert not condition.holds
    assert "0 subgroups of alone judged, 1500 too small to say" in condition.finding


def test_refusing_the_hard_cases_does_not_help(champion):
    assert failed(compare(champion, champion, lost=30)) == []
    assert failed(compare(champion, champion, lost=31)) == ["cases scored"]


@pytest.mark.parametrize("parity", [Parity(2e-6), Parity(None, "it fails (KeyError)")])
def test_parity_is_measured_or_refused(champion, parity):
    assert failed(compare(champion, champion, parity=parity)) == ["parity"]


def test_a_parity_at_its_limit_passes(champion):
    assert failed(compare(champion, champion, parity=Parity(POLICY.parity))) == []


@pytest.mark.parametrize(
    ("lower", "upper", "holds", "says"),
    [
        (-0.049, 0.1, True, "must lie above -0.05"),
        (-0.05, 0.1, False, "too uncertain to say that it is not worse: give more cases"),
        (-0.05, 0.0, False, "too uncertain to say that it is not worse: give more cases"),
        (-0.05, -0.001, False, "it is worse"),
    ],
)
def test_a_gain_must_lie_above_the_margin_whole(champion, monkeypatch, lower, upper, holds, says):
    monkeypatch.setattr(gate, "auroc_gain", lambda *_, **__: Interval(lower, lower, upper))
    condition = compare(champion, champion, columns=[])["AUROC not worse"]
    assert condition.holds is holds
    assert condition.finding.endswith(says)


@pytest.mark.parametrize(("statistic", "drop"), [("auroc_gain", 0.10), ("mean_difference_interval", 0.15)])
@pytest.mark.parametrize(
    ("beyond", "upper", "holds"), [(0.0, -0.001, False), (0.001, -0.001, True), (-0.05, 0.0, True), (-0.05, 0.1, True)]
)
def test_a_drop_of_its_limit_in_a_subgroup_is_a_collapse_when_its_interval_lies_below_nought(
    champion, monkeypatch, statistic, drop, beyond, upper, holds
):
    monkeypatch.setattr(gate, statistic, lambda *_, **__: Interval(beyond - drop, -0.5, upper))
    condition = compare(champion, champion, columns=["site"])["no subgroup collapse"]
    assert condition.holds is holds
    what = "AUROC" if statistic == "auroc_gain" else "sensitivity"
    assert (f"site north: {what} falls, challenger less champion" in condition.finding) is not holds


def test_one_known_image_is_too_many(champion):
    assert failed(compare(champion, champion, known_images=1)) == ["images are new"]


def test_patients_in_doubt_are_not_compared():
    conditions = admission(STANDING, STANDING, replace(COUNTS, doubt="ids may be other ones"), policy=POLICY)
    assert [(each.name, each.finding) for each in conditions if not each.holds] == [
        ("patients are recognised", "ids may be other ones")
    ]


def test_other_cases_are_no_comparison(study, champion):
    with pytest.raises(UsageError, match="not judged on the same cases"):
        compare(contender(study.iloc[::-1].reset_index(drop=True)), champion)


def test_decision_says_which_condition_failed_and_who_overruled_it(champion):
    conditions = list(compare(champion, champion, parity=Parity(1.0)).values())
    refused, forced = decide(conditions), decide(conditions, forced_because="known and harmless")
    assert (refused.promoted, refused.verdict) == (False, "refused")
    assert refused.reasons.startswith("parity: ")
    assert (forced.promoted, forced.verdict) == (True, "promoted by force")
    assert "known and harmless" in forced.reasons
    assert "known and harmless" in decision_text(forced, facts={})
    assert "| parity | **no** |" in decision_text(refused, facts={"a": "b"})
    assert refused.to_json()["conditions"][0]["name"] == "parity"
    with pytest.raises(UsageError, match="no condition was judged"):
        decide([])
    with pytest.raises(UsageError, match="reason for forcing is blank"):
        decide(conditions, forced_because=" ")


def test_the_decision_is_a_table_of_markdown():
    conditions = [Condition("parity", holds=True, finding="near"), Condition("calibration", holds=False, finding="off")]
    assert decision_text(decide(conditions, forced_because="a pilot"), facts={"cases": "40"}).splitlines() == [
        "**Gate: promoted by force**",
        "",
        "Forced because: a pilot",
        "",
        "- cases: 40",
        "",
        "| condition | holds | finding |",
        "|---|---|---|",
        "| parity | yes | near |",
        "| calibration | **no** | off |",
    ]


def test_paired_difference_covers_zero_when_there_is_none():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        who = np.repeat(np.arange(60), 3)
        covered.append(mean_difference_interval(rng.normal(size=60)[who] + rng.normal(size=180), who).contains(0.0))
    assert 0.91 <= np.mean(covered) <= 0.985


def test_paired_difference_of_shares_covers_the_truth_with_few_patients_whose_cases_are_alike():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        sizes = rng.integers(1, 5, 60)
        who = np.repeat(np.arange(60), sizes)
        alike = np.where(rng.random(who.size) < 0.6, rng.random(60)[who], rng.random(who.size))
        first, second = alike < 0.85, (alike > 0.06) & (alike < 0.95)  # shares 0.85 and 0.89
        covered.append(paired_proportion_interval(first, second, who).contains(-0.04))
    assert 0.93 <= np.mean(covered) <= 0.99


def test_paired_difference_of_independent_pairs_is_agresti_and_min():
    first, second = np.r_[np.ones(30), np.zeros(20)], np.r_[np.ones(25), np.zeros(10), np.ones(15)]
    found = paired_proportion_interval(first, second, np.arange(50))
    only_first, only_second, pairs = 5 + 0.5, 15 + 0.5, 50 + 2
    center = (only_first - only_second) / pairs
    error = np.sqrt((only_first + only_second - (only_first - only_second) ** 2 / pairs) / pairs**2 * 50 / 49)
    assert found.estimate == pytest.approx(-0.2)
    assert found.upper - center == pytest.approx(stats.t.ppf(0.975, 49) * error)
    assert center - found.lower == pytest.approx(stats.t.ppf(0.975, 49) * error)
    assert paired_proportion_interval(np.ones(9), np.ones(9), np.arange(9)).lower < -0.15
    with pytest.raises(UndefinedMetricError, match="1 patient; expected at least 2"):
        paired_proportion_interval([1, 0], [1, 1], ["p", "p"])
