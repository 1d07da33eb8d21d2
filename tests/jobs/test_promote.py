"""The gate with a real registry on sqlite, real model directories and real pictures."""

import mlflow
import pandas as pd
import pytest
from coded_models import PREPROCESSING, register_coded, use_coded_networks, write_pictures

from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.files import sha256_file
from pipeline.tracking.store import tracking_uri

pytestmark = pytest.mark.slow
PATIENTS = [f"P{number}" for number in range(360)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A folder with locked cases and a registry of one champion and several challengers, by what they are."""
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        use_coded_networks(patch)
        write_pictures(folder)
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
        code = run(["promote", uris[what], "--on", "manifest.csv", *options])
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
    assert {what: len(lines) for what, lines in failed.items()} == dict.fromkeys(failed, 1)


def looks(printed):
    line = [line for line in printed.splitlines() if line.startswith("looks at these locked cases")][-1]
    return int(line.split(": ")[1].split(" ")[0])


def test_every_look_is_counted_whichever_way_the_table_is_written(registry, promote):
    before = looks(promote("miscalibrated")[1])
    assert looks(promote("leaking")[1]) == before  # refused before any label was looked at
    table = pd.read_csv(registry[0] / "manifest.csv", dtype=str)
    table.iloc[::-1].assign(note="x").to_csv(registry[0] / "again.csv", index=False)
    run(["promote", registry[1]["good"], "--on", "again.csv"])
    assert int(tags(registry, "good")["gate.looks"]) == before + 1
    deleted = tags(registry, "good")["gate.run"]
    client().delete_run(deleted)
    assert looks(promote("miscalibrated")[1]) == before + 2


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
    assert restore_champion(store, "coded", at="now")[1] == second
    assert restore_champion(store, "coded", at="now")[1] == first
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
