"""The gate's policy on made-up predictions: each condition alone, and that doubt is no pass."""

from dataclasses import replace

import numpy as np
import pytest
from studies import calibrator, frame, point

from pipeline.errors import UsageError
from pipeline.evaluation import gate
from pipeline.evaluation.clustered import mean_difference_interval
from pipeline.evaluation.decision import Condition, decide, decision_text
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gate import Contender, GatePolicy, LockedCases, Parity, Standing, admission, contest
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.predictions import Predictions

STANDING = Standing("m version 1", "pathology", "real", "CT 3D", has_envelope=True)
COUNTS = LockedCases(100, 0, 0, 100, 40, 60)
POLICY = GatePolicy()


def contender(table, *, temperature=1.6):
    predictions = Predictions.from_frame(table).with_probabilities(calibrator(temperature).apply)
    return Contender(predictions, evaluate(predictions, operating_point=point(), resamples=100))


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


@pytest.mark.parametrize(("malignant", "benign", "holds"), [(20, 20, True), (19, 400, False), (400, 19, False)])
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
    assert failed(compare(contender(study, temperature=1.0), champion, columns=["site"])) == ["calibration"]


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
