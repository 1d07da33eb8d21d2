"""The gate's policy on made-up predictions: each condition alone, and that doubt is no pass."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from studies import calibrator, frame, point

from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.calibration.calibrator import logit, sigmoid
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gate.conditions import admission, contest
from pipeline.evaluation.gate.decision import Condition, decide_promotion, decision_text
from pipeline.evaluation.gate.records import Anchored, Answers, Contender, GateLook, LockedCases, Parity, Standing
from pipeline.evaluation.intervals.clustered import mean_difference_interval
from pipeline.evaluation.intervals.paired_difference import paired_proportion
from pipeline.evaluation.predictions import Predictions

STANDING = Standing("m version 1", "pathology", "real", "CT 3D", has_envelope=True)
COUNTS = LockedCases(10_000, 0, 0, 10_000, 4000, 6000)
POLICY = GatePolicy()
FIRST = GateLook(1, POLICY.alpha)


def admit(challenger=STANDING, champion=STANDING, counts=COUNTS, *, anchor=STANDING, policy=POLICY, at=FIRST):
    conditions = admission(challenger, champion, counts, anchor=anchor, policy=policy, at=at)
    return {each.name: each for each in conditions}


def contender(table, *, temperature=1.6, threshold=0.2):
    predictions = Predictions.from_frame(table).with_probabilities(calibrator(temperature).apply)
    return Contender(predictions, evaluate(predictions, operating_point=point(threshold), resamples=100))


def compare(challenger, champion, **settings):
    answers = {"lost": 0, "known_images": 0, "parity": Parity(0.0)}
    answers |= {name: settings.pop(name) for name in answers if name in settings}
    given = {
        "policy": POLICY,
        "anchored": None,
        "answers": Answers(**answers),
        "at": FIRST,
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
    assert decide_promotion(list(found.values())).verdict == "promoted"


def test_admission_needs_no_label_and_asks_for_the_same_question():
    assert failed(admit()) == []
    for change in (
        {"label_source": "x"},
        {"intensities": "simulated"},
        {"input_contract": "x"},
        {"has_envelope": False},
    ):
        assert len(failed(admit(replace(STANDING, **change)))) == 1
    # A champion without an envelope does not bar a challenger that has one.
    bare = replace(STANDING, has_envelope=False)
    assert failed(admit(champion=bare, anchor=bare)) == []


@pytest.mark.parametrize(("malignant", "benign", "holds"), [(40, 40, True), (39, 400, False), (400, 39, False)])
def test_too_few_patients_of_a_class_is_a_refusal(malignant, benign, holds):
    counts = replace(COUNTS, patients_malignant=malignant, patients_benign=benign)
    assert admit(counts=counts)["enough unseen patients"].holds is holds


def test_patients_that_any_model_has_seen_are_counted():
    finding = admit(counts=LockedCases(100, 1, 2, 90, 40, 50, seen_by_anchor=3))["enough unseen patients"].finding
    assert "1 of patients in the challenger's, 2 in the champion's and 3 in another anchor's" in finding


def test_a_look_that_could_not_decide_is_not_taken():
    few = replace(COUNTS, patients_malignant=200, patients_benign=200)
    condition = admit(counts=few)["power"]
    assert not condition.holds
    assert "0.8 is asked for, so no look is taken unless forced" in condition.finding
    assert admit(counts=few, policy=POLICY.model_copy(update={"least_power": 0.0}))["power"].holds
    # A later look spends less, and a second reference asks for more.
    barely = replace(COUNTS, patients_malignant=2500, patients_benign=4500)
    third = replace(STANDING, name="m version 0")
    assert admit(counts=barely)["power"].holds
    assert not admit(counts=barely, at=GateLook(2, POLICY.alpha))["power"].holds
    assert not admit(counts=barely, anchor=third)["power"].holds


@pytest.mark.parametrize("who", ["challenger", "champion"])
def test_the_anchor_may_be_one_of_the_two(who):
    given = {"challenger": STANDING, "champion": replace(STANDING, name="m version 0")}
    finding = admit(**given, anchor=given[who])["anchor"].finding
    assert finding == f"{given[who].name}, the {who}, is the anchor itself"
    assert "champion and anchor" not in admit(**given, anchor=given[who])["power"].finding


def test_an_anchor_that_answers_another_question_or_is_gone_bars_the_look():
    other = replace(STANDING, name="m version 0", input_contract="MR 2D", intensities="simulated")
    condition = admit(anchor=other)["anchor"]
    assert not condition.holds
    assert condition.finding == (
        "m version 0 cannot judge the challenger: it has another intensities, input contract; "
        "a person may name another: `malignancy anchor MODEL --reason TEXT`"
    )
    assert failed(admit(anchor="version 1 was deleted")) == ["anchor"]
    assert failed(admit(anchor=replace(STANDING, name="m version 0", has_envelope=False))) == []


def test_the_anchor_must_be_kept_up_with_too(study, champion):
    rng = np.random.default_rng(1)
    worse = contender(study.assign(logit=study["logit"] + rng.normal(0, 4, len(study))))
    found = compare(worse, worse, anchored=Anchored((worse, champion), lost=0, cases=1500))
    assert next(name for name in failed(found) if "anchor" in name) == "AUROC not worse than the anchor"
    assert "AUROC not worse" not in failed(found)
    assert found["AUROC not worse than the anchor"].finding.startswith("challenger less anchor, paired: -0.")
    assert "against the anchor's 0." in found["sensitivity not worse than the anchor"].finding
    assert len(compare(worse, worse)) == len(found) - 5


@pytest.mark.parametrize(("lost", "holds"), [(30, True), (31, False)])
def test_an_anchor_that_refuses_cases_judges_only_the_others(study, champion, lost, holds):
    members = np.arange(1500) >= lost
    pair = champion.part(members), champion.part(members)
    condition = compare(champion, champion, anchored=Anchored(pair, lost, 1500))["anchor scores the cases"]
    assert condition.holds is holds
    assert condition.finding.startswith(f"it refuses {lost} of 1500 compared cases (limit 2 %)")
    none = compare(champion, champion, anchored=Anchored(None, 1500, 1500))
    assert [name for name in none if "anchor" in name] == failed(none) == ["anchor scores the cases"]


def test_other_cases_than_the_anchors_are_no_comparison(champion):
    with pytest.raises(UsageError, match="not judged on the same cases"):
        pair = champion, champion.part(np.arange(1500) > 2)
        compare(champion, champion, anchored=Anchored(pair, 3, 1500))


def test_overconfident_probabilities_fail_calibration_alone(study, champion):
    same_decisions = float(sigmoid(1.6 * logit(0.2)))
    overconfident = contender(study, temperature=1.0, threshold=same_decisions)
    assert failed(compare(overconfident, champion, columns=["site"])) == ["calibration"]


def test_calibration_is_judged_at_the_prevalence_of_use_where_there_is_one(study, champion):
    overconfident = contender(study, temperature=1.0, threshold=float(sigmoid(1.6 * logit(0.2))))
    restated = replace(overconfident, calibration=champion.evaluation)
    assert failed(compare(restated, champion, columns=["site"])) == []
    spoilt = replace(champion, calibration=overconfident.evaluation)
    assert failed(compare(spoilt, champion, columns=["site"])) == ["calibration"]


@pytest.mark.parametrize(("threshold", "what"), [(1e-6, "specificity"), (0.9, "sensitivity")])
def test_same_ranking_with_a_useless_threshold_is_refused(study, champion, threshold, what):
    found = compare(contender(study, threshold=threshold), champion, columns=["site"])
    assert f"{what} not worse" in failed(found)
    assert set(failed(found)) <= {f"{what} not worse", "no subgroup collapse"}
    finding = found[f"{what} not worse"].finding
    assert finding.startswith("0.")
    assert "each at its own threshold; challenger less champion, paired: -0." in finding
    assert finding.endswith("inferior: shown (all below -0.02)")


def test_one_class_alone_cannot_be_judged(study):
    benign = contender(study[study["label"] == 0].reset_index(drop=True))
    condition = compare(benign, benign)["sensitivity not worse"]
    assert not condition.holds
    assert condition.finding.startswith("cannot be judged: ")


def test_refusing_the_hard_cases_does_not_help(champion):
    assert failed(compare(champion, champion, lost=30)) == []
    assert failed(compare(champion, champion, lost=31)) == ["cases scored"]


@pytest.mark.parametrize("parity", [Parity(2e-6), Parity(None, "it fails (KeyError)")])
def test_parity_is_measured_or_refused(champion, parity):
    assert failed(compare(champion, champion, parity=parity)) == ["parity"]


def test_a_parity_at_its_limit_passes(champion):
    assert failed(compare(champion, champion, parity=Parity(POLICY.parity))) == []


def test_one_known_image_is_too_many(champion):
    assert failed(compare(champion, champion, known_images=1)) == ["images are new"]


def test_patients_in_doubt_are_not_compared():
    conditions = admit(counts=replace(COUNTS, doubt="ids may be other ones"))
    assert failed(conditions) == ["patients are recognised"]
    assert conditions["patients are recognised"].finding == "ids may be other ones"


def test_other_cases_are_no_comparison(study, champion):
    with pytest.raises(UsageError, match="not judged on the same cases"):
        compare(contender(study.iloc[::-1].reset_index(drop=True)), champion)


def test_decision_says_which_condition_failed_and_who_overruled_it(champion):
    conditions = list(compare(champion, champion, parity=Parity(1.0)).values())
    refused, forced = decide_promotion(conditions), decide_promotion(conditions, forced_because="known and harmless")
    assert (refused.promoted, refused.verdict) == (False, "refused")
    assert refused.reasons.startswith("parity: ")
    assert (forced.promoted, forced.verdict) == (True, "promoted by force")
    assert "known and harmless" in forced.reasons
    assert "known and harmless" in decision_text(forced, facts={})
    assert "| parity | **no** |" in decision_text(refused, facts={"a": "b"})
    assert refused.to_json()["conditions"][0]["name"] == "parity"
    with pytest.raises(UsageError, match="no condition was judged"):
        decide_promotion([])
    with pytest.raises(UsageError, match="reason for forcing is blank"):
        decide_promotion(conditions, forced_because=" ")


def test_the_decision_is_a_table_of_markdown():
    conditions = [
        Condition("parity", holds=True, finding="near"),
        Condition("calibration", holds=False, finding="off"),
        Condition.of("AUROC not worse", "shown", "better"),
        Condition.of("sensitivity not worse", "not shown", "few"),
        Condition.of("specificity not worse", "refuted", "worse"),
    ]
    assert decision_text(
        decide_promotion(conditions, forced_because="a pilot"), facts={"cases": "40"}
    ).splitlines() == [
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
        "| AUROC not worse | yes | better |",
        "| sensitivity not worse | **no, not shown** | few |",
        "| specificity not worse | **no, refuted** | worse |",
    ]


def test_a_long_decision_is_shortened_where_it_holds():
    conditions = [Condition("a", holds=True, finding="long " * 50), Condition("b", holds=False, finding="why " * 20)]
    whole = decision_text(decide_promotion(conditions), facts={})
    assert decision_text(decide_promotion(conditions), facts={}, most=len(whole)) == whole
    short = decision_text(decide_promotion(conditions), facts={}, most=len(whole) - 1)
    assert "| a | yes | in `decision.md` of the gate's run |" in short
    assert f"| b | **no** | {'why ' * 20} |" in short


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
        covered.append(paired_proportion(first, second, who).interval().contains(-0.04))
    assert 0.93 <= np.mean(covered) <= 0.99


def test_paired_difference_of_independent_pairs_is_agresti_and_min():
    first, second = np.r_[np.ones(30), np.zeros(20)], np.r_[np.ones(25), np.zeros(10), np.ones(15)]
    found = paired_proportion(first, second, np.arange(50)).interval()
    only_first, only_second, pairs = 5 + 0.5, 15 + 0.5, 50 + 2
    center = (only_first - only_second) / pairs
    error = np.sqrt((only_first + only_second - (only_first - only_second) ** 2 / pairs) / pairs**2 * 50 / 49)
    assert found.estimate == pytest.approx(-0.2)
    assert found.upper - center == pytest.approx(stats.t.ppf(0.975, 49) * error)
    assert center - found.lower == pytest.approx(stats.t.ppf(0.975, 49) * error)
    assert paired_proportion(np.ones(9), np.ones(9), np.arange(9)).interval().lower < -0.15
    with pytest.raises(UndefinedMetricError, match="1 patient; expected at least 2"):
        paired_proportion([1, 0], [1, 1], ["p", "p"]).interval()
