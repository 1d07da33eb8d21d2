"""The pages of the MLflow UI that are prepared for a reviewer."""

import json
import sys

import pytest

from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.jobs import ui
from pipeline.tracking.runs import open_run
from pipeline.tracking.store import open_store
from pipeline.tracking.views import HEADLINE, prepare_views


def finished(experiment, kind):
    with open_run(Tracking(experiment=experiment), name="run", tags={"kind": kind}) as made:
        made.metrics({"test_auroc": 0.75})
    return made


def tags(experiment):
    return open_store(Tracking()).client.get_experiment_by_name(experiment).tags


def test_experiments_open_for_model_training_with_ten_columns(project):
    finished("night", "scoring")
    finished("lungs", "training")
    open_store(Tracking()).client.create_experiment("empty")
    views = prepare_views(open_store(Tracking()))
    assert [view.title for view in views] == ["runs of lungs", "charts of lungs", "runs of night", "charts of night"]
    assert all("workflowType=machine_learning" in view.fragment for view in views)
    assert tags("lungs")["mlflow.experimentKind"] == "custom_model_development"
    state = json.loads(tags("lungs")["mlflow.sharedViewState.headline"])
    assert state["selectedColumns"] == [f"metrics.`test_{name}`" for name in HEADLINE]
    assert len(HEADLINE) == 10
    assert "metrics.`rejected`" in json.loads(tags("night")["mlflow.sharedViewState.headline"])["selectedColumns"]
    assert prepare_views(open_store(Tracking())) == views


def test_champion_and_challenger_stand_side_by_side(project):
    runs = [finished("lungs", "training").run_id for _ in range(2)]
    client = open_store(Tracking()).client
    client.create_registered_model("m")
    for number, (run_id, alias) in enumerate(zip(runs, ("champion", "challenger"), strict=True), start=1):
        client.create_model_version("m", source=f"runs:/{run_id}/model", run_id=run_id)
        client.set_registered_model_alias("m", alias, str(number))
    (view,) = [view for view in prepare_views(open_store(Tracking())) if "beside" in view.title]
    assert view.title == "m: champion (version 1) beside challenger (version 2)"
    assert view.fragment.endswith("viewStateShareKey=champion-of-m&compareRunsMode=CHART")
    state = json.loads(tags("lungs")["mlflow.sharedViewState.champion-of-m"])
    found = client.search_runs([client.get_experiment_by_name("lungs").experiment_id], state["searchFilter"])
    assert {each.info.run_id for each in found} == set(runs)


def test_addresses_are_printed_and_no_password_is_on_the_command_line(project, monkeypatch, capsys):
    finished("lungs", "training")
    started = []
    monkeypatch.setattr(ui.os, "execv", lambda program, arguments: started.append(arguments))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    assert run(["ui", "--port", "5123"]) == 0
    said = capsys.readouterr().out
    assert "runs of lungs: http://127.0.0.1:5123/#/experiments/" in said
    ((program, *arguments),) = started
    assert program == sys.executable
    assert "sqlite" not in " ".join(arguments)
    assert ui.os.environ["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{project / 'mlflow.db'}"


def test_page_is_opened_once_the_server_answers(monkeypatch):
    answers = iter([ConnectionRefusedError(), None])

    class Answer:
        def close(self):
            pass

    def urlopen(address, timeout):
        assert address == "http://127.0.0.1:5123/health"
        error = next(answers)
        if error:
            raise error
        return Answer()

    opened = []
    monkeypatch.setattr(ui.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(ui.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    ui.open_when_up("http://127.0.0.1:5123", "/#/experiments/1/runs")
    assert opened == ["http://127.0.0.1:5123/#/experiments/1/runs"]
    with pytest.raises(StopIteration):
        next(answers)
