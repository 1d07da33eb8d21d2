"""The gate with a real registry on sqlite, real model directories and real pictures."""

import re

import mlflow
import pandas as pd
import pytest
from coded_models import PREPROCESSING, register_coded, use_coded_networks, write_pictures

from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.evaluation.calibration.calibrator import logit
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import sha256_file
from pipeline.tracking.store import tracking_uri

pytestmark = pytest.mark.slow
PATIENTS = [f"P{number}" for number in range(360)]
# 360 patients are few; what is tested here is that each condition is asked, and what is made of its answer.
MARGINS = {"auroc_margin": 0.2, "sensitivity_margin": 0.2, "specificity_margin": 0.2}
POLICY = "".join(f"{key}: {value}\n" for key, value in {**MARGINS, "expected_correlation": 0.95}.items())
ZONE = ReferZone(0.9, 0.02, 0.98, 100, 100, (0.8, 0.95), (0.8, 0.95))


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A folder with locked cases and a registry of one champion and several challengers, by what they are."""
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        use_coded_networks(patch)
        write_pictures(folder)
        (folder / "gate.yaml").write_text(POLICY)
        settings = {
            "champion": {"south": 1.2},
            "good": {},
            "miscalibrated": {"temperature": 0.3},
            "careless": {"threshold": 1e-6},
            "leaking": {"trained_on": PATIENTS[20:]},
            "collapsing": {"south": 0.0},
            "foreign": {"source": "pathology"},
            "real": {"intensities": "real"},
            "small": {"preprocessing": PREPROCESSING.model_copy(update={"size": (64, 64)})},
            "open": {"envelope": False},
            "renamed": {"case_ids": [f"c{number}" for number in range(360)]},
            "relabelled": {"images": [sha256_file(folder / "images" / "7.png")]},
            "worse": {"north": 1.8, "south": 0.9},
            "referring": {"refer_zone": ZONE},
            "rare": {"shift": float(logit(0.1))},
        }
        yield folder, {what: register_coded(folder, Tracking(), **each) for what, each in settings.items()}


@pytest.fixture
def promote(registry, monkeypatch, capsys):
    """Promote one of the challengers; returns exit code and everything printed."""
    folder, uris = registry
    monkeypatch.chdir(folder)
    use_coded_networks(monkeypatch)
    client().set_registered_model_alias("coded", "champion", version_of(uris["champion"]))

    def command(what, *options):
        code = run(["promote", uris[what], "--on", "manifest.csv", "--policy", "gate.yaml", *options])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


def client():
    return mlflow.MlflowClient(tracking_uri(Tracking()), tracking_uri(Tracking()))


def version_of(uri):
    return uri.rsplit("/", 1)[1]


def champion():
    return str(client().get_model_version_by_alias("coded", "champion").version)


def tags(registry, what):
    return client().get_model_version("coded", version_of(registry[1][what])).tags


def test_good_challenger_is_promoted_and_rollback_restores(registry, promote, capsys):
    code, printed = promote("good")
    assert code == 0, printed
    assert "FAILED" not in printed
    assert champion() == version_of(registry[1]["good"])
    assert tags(registry, "good")["gate.verdict"] == "promoted"
    described = client().get_model_version("coded", champion()).description
    assert described.startswith("as trained")
    assert "| no subgroup collapse | yes |" in described
    assert len(described) < 4900
    assert run(["rollback", "coded"]) == 0
    assert champion() == version_of(registry[1]["champion"])
    assert "to version 1" in tags(registry, "good")["gate.rolled_back"]
    assert run(["rollback", "coded"]) == 2
    assert "replaced no champion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "failed", "why"),
    [
        ("miscalibrated", "calibration", "overconfident"),
        ("careless", "specificity not worse", "0.000 against the champion's 0."),
        ("leaking", "enough unseen patients", "340 of patients in the challenger's"),
        ("collapsing", "no subgroup collapse", "site south: AUROC falls, challenger less champion -0."),
        ("foreign", "same label source", "the challenger's is 'pathology', the champion's 'made up'"),
        ("real", "same intensities", "the challenger's is 'real'"),
        ("small", "same input contract", "64 x 64 voxels"),
        ("open", "acceptance envelope", "would score anything"),
        ("renamed", "patients are recognised", "360 of 360 case ids are"),
        ("relabelled", "images are new", "images that one of the models was fitted on"),
    ],
)
def test_unfit_challenger_is_refused_with_the_right_reason(registry, promote, what, failed, why):
    code, printed = promote(what)
    assert code == 1
    (line,) = [line for line in printed.splitlines() if line.startswith(f"FAILED  {failed}: ")]
    assert why in line
    assert champion() == version_of(registry[1]["champion"])
    written = tags(registry, what)
    assert written["gate.verdict"] == "refused"
    assert why in written["gate.reasons"]
    decision = client().get_run(written["gate.run"])
    assert decision.info.status == "FINISHED"
    assert why in decision.data.tags["mlflow.note.content"]


def test_only_what_is_wrong_fails(promote):
    failed = {
        what: [line for line in promote(what)[1].splitlines() if line.startswith("FAILED")]
        for what in ("miscalibrated", "careless", "leaking", "foreign", "real", "small", "open")
    }
    # Twenty patients are too few, and show too little.
    assert {what: len(lines) for what, lines in failed.items()} == {**dict.fromkeys(failed, 1), "leaking": 2}


def looks(printed):
    line = [line for line in printed.splitlines() if line.startswith("looks at these patients")][-1]
    return int(re.match(r".*: (\d+)", line)[1])


def test_every_look_is_counted_whichever_way_the_table_is_written(registry, promote):
    before = looks(promote("miscalibrated")[1])
    assert looks(promote("leaking")[1]) == before  # refused before any label was looked at
    table = pd.read_csv(registry[0] / "manifest.csv", dtype=str)
    table.iloc[::-1].assign(note="x").to_csv(registry[0] / "again.csv", index=False)
    run(["promote", registry[1]["good"], "--on", "again.csv", "--policy", "gate.yaml"])
    assert int(tags(registry, "good")["gate.looks"]) == before + 1
    deleted = tags(registry, "good")["gate.run"]
    client().delete_run(deleted)
    assert looks(promote("miscalibrated")[1]) == before + 2


def test_a_look_counts_for_whoever_shares_a_patient_or_an_image(registry, promote):
    before = looks(promote("leaking")[1])
    table = pd.read_csv(registry[0] / "manifest.csv", dtype=str)

    def count(changed, name="other.csv"):
        changed.to_csv(registry[0] / name, index=False)
        run(["promote", registry[1]["leaking"], "--on", name, "--policy", "gate.yaml"])
        return int(tags(registry, "leaking")["gate.looks"])

    assert before > 0
    assert count(table.iloc[:200]) == before
    assert count(table.iloc[[3, *range(330, 360)]], "renamed.csv") == before
    strangers = table.assign(patient_id=[f"Q{number}" for number in range(len(table))], case_id=table["patient_id"])
    assert count(strangers) == before + 1  # to nobody's ids, so that they are scored; known by their images then


def test_the_record_of_a_look_names_nobody(registry, promote):
    promote("miscalibrated")
    looked = mlflow.artifacts.load_dict(f"runs:/{tags(registry, 'miscalibrated')['gate.run']}/looked_at.json")
    assert len(looked["patients"]) == 360
    assert set(looked["patients"]).isdisjoint(PATIENTS)
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in (*looked["patients"], *looked["images"]))


def test_without_a_policy_few_patients_cost_no_look(registry, promote, capsys):
    before = looks(promote("leaking")[1])
    assert run(["promote", registry[1]["good"], "--on", "manifest.csv"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED  power: look " in printed
    assert "no look is taken unless forced. It takes about " in printed
    assert looks(printed) == before
    assert "policy: the defaults" in printed
    assert champion() == version_of(registry[1]["champion"])
    assert run(["promote", registry[1]["good"], "--on", "manifest.csv", "--force", "--reason", "a pilot"]) == 0
    forced = capsys.readouterr().out
    assert looks(forced) > before
    assert "AUROC not worse: challenger less champion, paired: " in forced


def test_the_policy_is_recorded_and_its_faults_are_said(registry, promote, capsys):
    promote("miscalibrated")
    written = tags(registry, "miscalibrated")
    assert written["gate.policy"] == (
        "auroc_margin 0.2, sensitivity_margin 0.2, specificity_margin 0.2, expected_correlation 0.95; "
        "otherwise the defaults"
    )
    decision = mlflow.artifacts.load_dict(f"runs:/{written['gate.run']}/decision.json")
    assert decision["policy"]["sensitivity_margin"] == 0.2
    assert decision["policy"]["referred_margin"] == 0.05
    (registry[0] / "wrong.yaml").write_text("sensitivity_margin: 2\nauroc: 1\n")
    assert run(["promote", registry[1]["good"], "--on", "manifest.csv", "--policy", "wrong.yaml"]) == 2
    said = capsys.readouterr().err
    assert "wrong.yaml: sensitivity_margin: 2 is not accepted" in said
    assert "wrong.yaml: auroc: unknown key" in said


def test_the_first_champion_stays_the_anchor_until_a_person_names_another(registry, promote, capsys):
    registered = client().get_registered_model("coded")  # a number or text, as the store has it
    assert str(registered.aliases["anchor"]) == "1"
    assert "holds   anchor: coded version 1, the champion, is the anchor itself" in promote("miscalibrated")[1]
    client().set_registered_model_alias("coded", "champion", version_of(registry[1]["collapsing"]))
    run(["promote", registry[1]["worse"], "--on", "manifest.csv", "--policy", "gate.yaml"])
    printed = capsys.readouterr().out
    assert "holds   anchor: coded version 1, compared with as well" in printed
    assert "anchor scores the cases: it refuses 0 of 360" in printed
    assert "AUROC not worse than the anchor: challenger less anchor, paired: -0." in printed
    assert "refers no more than the anchor: neither model has a refer zone" in printed
    assert client().get_run(tags(registry, "worse")["gate.run"]).data.tags["anchor_version"] == "models:/coded/1"


def test_a_person_names_another_anchor_and_says_why(registry, promote, capsys):
    assert run(["anchor", registry[1]["foreign"], "--reason", "labels are pathology from now on"]) == 0
    try:
        written = tags(registry, "foreign")
        assert written["gate.anchor_because"] == "labels are pathology from now on"
        assert written["gate.anchor_before"] == "coded version 1"
        printed = promote("good")[1]
        assert "FAILED  anchor: coded version 7 cannot judge the challenger: it has another label source" in printed
        assert run(["anchor", registry[1]["good"], "--reason", " "]) == 2
        assert run(["anchor", "models:/coded/999", "--reason", "x"]) == 2
        holder = client().get_model_version_by_alias("coded", "anchor").version
        assert str(holder) == version_of(registry[1]["foreign"])
    finally:
        client().set_registered_model_alias("coded", "anchor", "1")


def test_an_anchor_that_is_gone_is_said(registry, promote):
    from pipeline.tracking.promotion import find_anchor
    from pipeline.tracking.store import open_store

    client().delete_registered_model_alias("coded", "anchor")
    store = open_store(Tracking())
    try:
        assert str(find_anchor(store, "coded")) == "coded version 1"  # of a name older than anchors
        spare = register_coded(registry[0], Tracking())
        client().set_registered_model_alias("coded", "anchor", version_of(spare))
        assert str(find_anchor(store, "coded")) == f"coded version {version_of(spare)}"
    finally:
        client().set_registered_model_alias("coded", "anchor", "1")
    register_coded(registry[0], Tracking(), name="lost")
    client().delete_model_version("lost", "1")
    assert find_anchor(store, "lost") == "version 1, the first champion of lost, was deleted"


def test_a_challenger_that_refers_most_cases_is_refused_for_that(promote):
    code, printed = promote("referring")
    assert code == 1
    failed = [line for line in printed.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert failed[0].startswith("FAILED  refers no more: 0.")
    assert "against the champion's 0.000; champion less challenger, paired: -0." in failed[0]


def test_a_model_calibrated_for_another_prevalence_is_judged_at_it(registry, promote):
    """Its probabilities are those of a tenth; on these cases, half malignant, they are too low by a known offset."""
    assert promote("rare")[0] == 1
    code, printed = promote("rare", "--prevalence", "0.1")
    assert code == 0, printed
    assert "prevalence 0.1" in tags(registry, "rare")["gate.policy"]
    failed = [line for line in promote("good", "--prevalence", "0.02")[1].splitlines() if line.startswith("FAILED")]
    assert [line.split(":")[0] for line in failed] == ["FAILED  calibration"]
    assert promote("rare", "--prevalence", "1.5")[0] == 2


def test_force_needs_a_reason_which_is_recorded(registry, promote):
    assert "belong together" in promote("leaking", "--force")[1]
    assert promote("leaking", "--force", "--reason", " ")[0] == 2
    assert promote("leaking", "--reason", "I want to")[0] == 2
    assert champion() == version_of(registry[1]["champion"])
    code, printed = promote("leaking", "--force", "--reason", "the old one is broken")
    assert code == 0
    assert "promoted by force" in printed
    assert champion() == version_of(registry[1]["leaking"])
    written = tags(registry, "leaking")
    assert written["gate.forced_because"] == "the old one is broken"
    assert "enough unseen patients" in written["gate.reasons"]


def test_registered_model_that_answers_otherwise_has_no_parity(promote, monkeypatch):
    from pipeline.tracking import promotion

    honest = promotion.registered_probabilities
    monkeypatch.setattr(promotion, "registered_probabilities", lambda *a, **k: honest(*a, **k) + 1e-5)
    code, printed = promote("good")
    assert code == 1
    assert "FAILED  parity: command and registered MLflow model differ by at most 1e-05" in printed


def test_wrong_usage_is_one_line(registry, promote, capsys, monkeypatch):
    assert promote("champion") == (
        2,
        "malignancy: coded version 1: is the champion already; name another version, as models:/coded/VERSION\n",
    )
    for model, says in (("folder", "is not a registered version"), ("models:/none@challenger", "no such version")):
        assert run(["promote", model, "--on", "manifest.csv"]) == 2
        assert says in capsys.readouterr().err
    assert run(["rollback", "none"]) == 2
    assert "no such version" in capsys.readouterr().err


def test_rollbacks_walk_back_and_not_to_and_fro(registry, promote):
    from pipeline.errors import UsageError
    from pipeline.tracking.promotion import find_version, move_champion, restore_champion
    from pipeline.tracking.store import open_store

    store = open_store(Tracking())
    first, second = (find_version(store, registry[1][what]) for what in ("champion", "good"))
    move_champion(store, second, from_version=first)
    move_champion(store, first, from_version=second)
    assert restore_champion(store, "coded", at="now").restored == second
    assert restore_champion(store, "coded", at="now").restored == first
    with pytest.raises(UsageError, match="replaced no champion"):
        restore_champion(store, "coded", at="now")


def test_cases_of_another_kind_than_the_model_judge_nothing(registry, promote):
    folder, _ = registry
    facts = folder / "manifest.yaml"
    facts.write_text("intensities: real\n")
    try:
        code, said = promote("good")
        assert code == 2
        assert "intensities of the cases: real (360); of the model: simulated; a gate on cases of another kind" in said
    finally:
        facts.unlink()
