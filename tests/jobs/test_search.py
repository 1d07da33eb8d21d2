"""``malignancy search``: it goes on where it was, looks at two splits alone, and says what it chose on."""

import csv
import json

import pytest
import yaml
from cohorts import tiny_config
from mlflow.tracking import MlflowClient

from pipeline.cli import run

pytest.importorskip("optuna", reason="the extra [search] is not installed")
RANGES = {
    "training.learning_rate": {"low": 0.0005, "high": 0.01, "log": True},
    "training.batch_size": {"choices": [8, 16]},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, cohort_manifest):
    folder = tmp_path_factory.mktemp("search")
    config = tiny_config(cohort_manifest, folder) | {"search": {"ranges": RANGES, "trials": 2, "seeds": [0, 1]}}
    config["training"] |= {"max_epochs": 3}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return workspace


def runs(inside, kind):
    client = MlflowClient(f"sqlite:///{inside / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [each for each in client.search_runs(experiments) if each.data.tags.get("kind") == kind]


def test_a_search_goes_on_where_it_was(inside, capsys):
    assert run(["search", "tiny.yaml", "search.trials=1"]) == 0
    first = capsys.readouterr().out
    assert "1 trials (1 complete)" in first
    assert run(["search", "tiny.yaml"]) == 0
    said = capsys.readouterr().out
    assert "2 trials" in said
    assert "mean of 2 seeds" in said
    assert "the test split was not read" in said
    assert "train it with: malignancy train tiny.yaml training.batch_size=" in said
    trials = runs(inside, "trial")
    parents = {each.info.run_id for each in runs(inside, "search")}
    assert len(trials) == 2
    assert {each.data.tags["mlflow.parentRunId"] for each in trials} == parents
    assert run(["search", "tiny.yaml"]) == 0  # nothing is left to do
    assert len(runs(inside, "trial")) == 2


def test_only_training_and_validation_scans_are_opened(inside, monkeypatch, cohort_manifest):
    from pipeline.cases import manifest as module
    from pipeline.cases.splits import assign_splits
    from pipeline.config.inputs import SplitFractions
    from pipeline.workflow import cohort as opened

    seen = []
    prepare = opened.prepare_cases
    monkeypatch.setattr(
        opened, "prepare_cases", lambda cases, *args, **more: (seen.extend(cases), prepare(cases, *args, **more))[1]
    )
    assert run(["search", "tiny.yaml"]) == 0
    config = yaml.safe_load((inside / "tiny.yaml").read_text())["data"]
    fractions = SplitFractions(**config["splits"]) if "splits" in config else SplitFractions()
    of = assign_splits(module.read_manifest(cohort_manifest), fractions, seed=config.get("split_seed", 0)).of
    assert {of[case.case_id] for case in seen} == {"train", "validation"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("search=null", "search: is null; declare search.ranges"),
        ("search.ranges={data.split_seed: {choices: [1, 2]}}", "'data.split_seed' cannot be searched"),
        ("search.ranges={training.learning_rate: {low: 2, high: 1}}", "give either choices, or low below high"),
        ("search.ranges={training.learning_rate: {low: 0.0, high: 1.0, log: true}}", "has no logarithm"),
        ("search.ranges={training.batch_sise: {choices: [8, 16]}}", "batch_sise: unknown key"),
        ("search.ranges={network.dropout: {low: 0.0, high: 1.5}}", "dropout: 1.5 is not accepted"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused_at_once(inside, capsys, override, says):
    assert run(["search", "tiny.yaml", override]) == 2
    assert says in capsys.readouterr().err


def test_trials_that_all_fail_end_the_search_with_the_reason(inside, capsys):
    ranges = json.dumps({"training.learning_rate": {"low": 1e18, "high": 1e19}})
    assert run(["search", "tiny.yaml", f"search.ranges={ranges}", "search.trials=1", "training.gradient_clip=0"]) == 3
    assert "every trial failed" in capsys.readouterr().err


def test_all_trials_are_kept_as_a_table(inside):
    client = MlflowClient(f"sqlite:///{inside / 'mlflow.db'}")
    last = max(
        (each for each in runs(inside, "search") if each.info.status == "FINISHED"), key=lambda each: each.info.end_time
    )
    path = client.download_artifacts(last.info.run_id, "trials.csv", str(inside))
    with open(path) as handle:
        rows = list(csv.DictReader(handle))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert set(rows[0]) == {"trial", "state", "value", *RANGES}
