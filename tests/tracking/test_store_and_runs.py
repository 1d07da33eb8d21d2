"""The tracking store: opened once by whoever is first, runs closed whatever happens."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from cohorts import tiny_config

from pipeline.config.experiment import Tracking
from pipeline.errors import ModelError, UnfinishedError
from pipeline.tracking.registry import model_folder
from pipeline.tracking.runs import open_run
from pipeline.tracking.store import open_store
from pipeline.tracking.system_metrics import system_metrics


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifacts=tmp_path / "mlartifacts", experiment="e")


def status(tracking, run_id):
    return open_store(tracking).client.get_run(run_id).info.status


def test_run_is_closed_as_what_it_was(tracking):
    with open_run(tracking, name="fine", tags={}) as fine:
        fine.metrics({"loss": 1.0}, step=1)
    with pytest.raises(ValueError, match="broken"), open_run(tracking, name="failed", tags={}) as failed:
        raise ValueError("broken")
    with pytest.raises(KeyboardInterrupt), open_run(tracking, name="killed", tags={}) as killed:
        raise KeyboardInterrupt
    assert [status(tracking, run.run_id) for run in (fine, failed, killed)] == ["FINISHED", "FAILED", "KILLED"]


def test_experiment_has_its_own_artifact_folder(tracking, tmp_path):
    with open_run(tracking, name="run", tags={}) as run:
        run.text("hello", "note.txt")
    experiment = run.store.client.get_experiment_by_name("e")
    assert experiment.experiment_id != "0"
    assert experiment.artifact_location == (tmp_path / "mlartifacts" / "e").as_uri()
    assert (tmp_path / "mlartifacts" / "e" / run.run_id / "artifacts" / "note.txt").read_text() == "hello"


def test_nested_configuration_becomes_dotted_parameters(tracking):
    with open_run(tracking, name="run", tags={}) as run:
        run.params({"training": {"max_epochs": 3}, "name": "x", "size": [1, 2], **{f"p{n}": n for n in range(250)}})
    params = run.store.client.get_run(run.run_id).data.params
    assert params["training.max_epochs"] == "3"
    assert params["name"] == "x"
    assert params["size"] == "[1, 2]"
    assert len(params) == 253


def test_what_the_machine_does_is_recorded_unless_turned_off(tracking, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    found = []
    for switch in (None, "false"):
        if switch:
            monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", switch)
        with open_run(tracking, name="run", tags={}) as run, system_metrics(run):
            time.sleep(0.5)
        found.append(run.store.client.get_run(run.run_id).data.metrics)
    assert found[0]["system/system_memory_usage_megabytes"] > 0
    assert 0 <= found[0]["system/cpu_utilization_percentage"] <= 100
    assert found[1] == {}


def test_environment_wins_over_the_configuration(tracking, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert open_store(tracking).uri.endswith("other.db")


def test_opening_one_store_does_not_decide_about_the_next(tracking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store(tracking)
    assert open_store(Tracking()).uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert open_store(Tracking()).uri == f"sqlite:///{tmp_path / 'sub' / 'mlflow.db'}"


def test_store_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = time.monotonic()
    with pytest.raises(UnfinishedError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        open_store(Tracking(uri="http://127.0.0.1:9"))
    assert time.monotonic() - started < 60  # MLflow's own settings wait for minutes


def test_a_file_that_has_the_name_of_the_stores_lock_keeps_its_content(tracking, tmp_path):
    (tmp_path / "mlflow.db.lock").write_text("precious")
    open_store(tracking)
    assert (tmp_path / "mlflow.db.lock").read_text() == "precious"


def test_unknown_models_are_one_line(tracking, tmp_path):
    for uri in ("models:/none@champion", "models:/none/1", "runs:/0123/model"):
        with pytest.raises(ModelError, match="no such model"):
            model_folder(uri, tracking)
    assert model_folder(str(tmp_path), tracking) == tmp_path


@pytest.mark.slow
def test_eight_cold_clients_can_open_one_new_store(tmp_path):
    code = (
        "from pathlib import Path; from pipeline.config.experiment import Tracking\n"
        "from pipeline.tracking.runs import open_run\n"
        f"t = Tracking(uri='sqlite:///{tmp_path}/mlflow.db', artifacts=Path('{tmp_path}/a'), experiment='e')\n"
        "with open_run(t, name='x', tags={}): pass"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    started = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment) for _ in range(8)
    ]
    answers = [process.communicate(timeout=600)[1].decode() for process in started]
    store = open_store(Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    runs = store.client.search_runs([store.client.get_experiment_by_name("e").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert [process.returncode for process in started] == [0] * 8, answers


@pytest.mark.slow
def test_ctrl_c_leaves_a_closed_run_and_a_usable_checkpoint(tmp_path, cohort_manifest):
    import torch

    config = tiny_config(cohort_manifest, tmp_path, training={"max_epochs": 500, "early_stopping": {"patience": 499}})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "pipeline", "train", str(tmp_path / "c.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    store = open_store(Tracking(uri=config["tracking"]["uri"]))
    (run,) = store.client.search_runs([store.client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.status == "KILLED"
    (checkpoint,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not list(tmp_path.glob("runs/*/model"))
