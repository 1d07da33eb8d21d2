"""``train --resume``: a killed run becomes the run that it would have been."""

import json
import stat

import pytest
import yaml
from cohorts import tiny_config

from pipeline.cli import run
from pipeline.tracking.runs import TrackedRun
from pipeline.training import networks
from pipeline.training.fit import fit


class KilledError(BaseException):
    """The end of a command from outside."""


@pytest.fixture
def inside(tmp_path, monkeypatch, cohort_manifest):
    cache = {"manifest": str(cohort_manifest), "cache": {"folder": str(tmp_path / "cache"), "max_gb": 1.0}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(cohort_manifest, tmp_path, data=cache)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run_folders(folder):
    return sorted(path for path in (folder / "runs").iterdir())


def killed_in_epoch(monkeypatch, epoch):
    def metrics(self, values, *, step=0):
        if step == epoch:
            raise KilledError
        self.spool.add(values, step=step)

    monkeypatch.setattr(TrackedRun, "metrics", metrics)


def killed_after_fitting(monkeypatch):
    def fitting(*args, **kwargs):
        fit(*args, **kwargs)
        raise KilledError

    monkeypatch.setattr(networks, "fit", fitting)


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--folds", "2", "calibration.method=isotonic"], marks=pytest.mark.slow)]
)
def test_resumed_command_leaves_one_whole_run_with_the_same_weights(inside, options):
    import mlflow

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_in_epoch(patch, 2)
        run(["train", "tiny.yaml", *options])
    (folder,) = run_folders(inside)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_after_fitting(patch)
        run(["train", "tiny.yaml", *options, "--resume", str(folder)])
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert run(["train", "tiny.yaml", *options, "--resume", run_id]) == 0
    assert run(["train", "tiny.yaml", *options]) == 0
    resumed, whole = run_folders(inside)
    weights = [
        {file.name: file.read_bytes() for file in (path / "model").glob("*.safetensors")} for path in (resumed, whole)
    ]
    assert len(weights[0]) == (2 if options else 1)
    assert weights[0] == weights[1]
    client = mlflow.MlflowClient(f"sqlite:///{inside / 'mlflow.db'}")
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert "test_auroc" in found.data.metrics
    experiment = client.get_experiment_by_name("tiny").experiment_id
    children = 2 if options else 0
    assert len(client.search_runs([experiment])) == 2 * (1 + children)
    assert len(client.search_model_versions("name='tiny'")) == 2


def test_resume_refuses_another_configuration_and_a_finished_run(inside, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_in_epoch(patch, 1)
        run(["train", "tiny.yaml"])
    (folder,) = run_folders(inside)
    assert run(["train", "tiny.yaml", "training.batch_size=4", "--resume", str(folder)]) == 2
    assert "training.batch_size was 8, and is 4; restore it" in capsys.readouterr().err
    assert "networks_at_once" not in (folder / "run.json").read_text()  # which may change: fewer need less memory
    assert run(["train", "tiny.yaml", "--folds", "2", "--resume", str(folder)]) == 2
    assert "training.folds was None, and is 2" in capsys.readouterr().err
    assert run(["train", "tiny.yaml", "--resume", "nothing"]) == 2
    assert "--resume nothing: neither a run's folder" in capsys.readouterr().err
    (inside / "runs" / "alien").mkdir()
    for text in ("[]", '{"run_id": "nothing"}', "NaN", "{"):
        (inside / "runs" / "alien" / "run.json").write_text(text)
        assert run(["train", "tiny.yaml", "--resume", "nothing"]) == 2
        assert "--resume nothing: neither a run's folder" in capsys.readouterr().err
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "summary.txt").write_text("done")
    assert run(["train", "tiny.yaml", "--resume", str(folder)]) == 2
    assert "is finished" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", '{"run_id": "0"', "[]", '{"run_id": "0"}'])
def test_damaged_record_of_a_run_is_one_line(inside, capsys, content):
    folder = inside / "runs" / "tiny-1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(content)
    assert run(["train", "tiny.yaml", "--resume", str(folder)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "run.json: is not what was written; restore it" in said


def test_store_that_fails_at_the_end_costs_nothing_that_was_learnt(inside, monkeypatch, capsys):
    import sqlite3

    from sqlalchemy.exc import OperationalError

    from pipeline.workflow.learning import run as training

    def full(*args):
        raise OperationalError("INSERT INTO metrics", {}, sqlite3.OperationalError("database or disk is full"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "record_model", full)
        assert run(["train", "tiny.yaml"]) == 3
    (folder,) = run_folders(inside)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert "stopped answering: database or disk is full; free some space" in last
    assert f"the trained model is whole in {folder / 'model'}, and --resume {folder} records it" in last
    weights = (folder / "model" / "model.safetensors").read_bytes()
    assert run(["train", "tiny.yaml", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "model: models:/tiny/1"
    assert (folder / "model" / "model.safetensors").read_bytes() == weights


def test_a_model_of_the_killed_run_is_set_aside_and_not_removed(inside):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_in_epoch(patch, 1)
        run(["train", "tiny.yaml"])
    (folder,) = run_folders(inside)
    (folder / "model").mkdir()
    (folder / "model" / "notes.txt").write_text("precious")
    assert run(["train", "tiny.yaml", "--resume", str(folder)]) == 0
    assert (folder / "model" / "model.json").exists()
    assert [path.read_text() for path in folder.glob("model-before-*/notes.txt")] == ["precious"]
