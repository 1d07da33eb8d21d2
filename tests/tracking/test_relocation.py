"""A project folder that is moved or copied takes its artifacts along."""

import shutil
import sqlite3

import pytest

from pipeline.config.experiment import Tracking
from pipeline.tracking.runs import open_run, spool_folder
from pipeline.tracking.store import open_store


@pytest.fixture
def tracked(project):
    """A project with one run that has a note."""
    with open_run(Tracking(experiment="e"), name="first", tags={}) as made:
        made.text("original", "note.txt")
    return project, made.run_id


def note(run_id):
    """What the store of the current folder gives for the run's note."""
    import mlflow.artifacts

    open_store(Tracking())
    return mlflow.artifacts.load_text(f"runs:/{run_id}/note.txt")


def recorded(folder):
    with sqlite3.connect(folder / "mlflow.db") as database:
        return str(list(database.execute("SELECT artifact_location FROM experiments"))) + str(
            list(database.execute("SELECT artifact_uri FROM runs"))
        )


@pytest.mark.parametrize("target", ["elsewhere", "with ä space", "project/inside", "."])
def test_moved_project_is_found_and_the_old_folder_stays_gone(tracked, tmp_path, monkeypatch, capsys, target):
    project, run_id = tracked
    monkeypatch.chdir(tmp_path)
    aside = tmp_path / "aside"
    project.rename(aside)
    folder = tmp_path / target
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(aside.iterdir()):
        path.rename(folder / path.name)
    monkeypatch.chdir(folder)
    assert note(run_id) == "original"
    assert f"what it names in {project} is now read from {folder}\n" in capsys.readouterr().err
    with open_run(Tracking(experiment="e"), name="second", tags={}) as made:
        made.text("later", "note.txt")
    assert note(made.run_id) == "later"
    assert not (project / "mlartifacts").exists()
    assert "what it names" not in capsys.readouterr().err  # said once


def test_copy_reads_and_writes_its_own_files(tracked, tmp_path, monkeypatch):
    project, run_id = tracked
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    (path,) = copy.rglob("note.txt")
    path.write_text("copied")
    before = recorded(project)
    monkeypatch.chdir(copy)
    assert note(run_id) == "copied"
    monkeypatch.chdir(project)
    assert note(run_id) == "original"
    assert recorded(project) == before


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(project, tmp_path, monkeypatch):
    tracking = Tracking(experiment="e", artifacts=tmp_path / "big" / "mlartifacts")
    with open_run(tracking, name="run", tags={}) as made:
        made.text("original", "note.txt")
    (project / "mlartifacts" / "e" / "another run").mkdir(parents=True)  # has the same end, and files of no run here
    before = recorded(project)
    assert note(made.run_id) == "original"
    assert recorded(project) == before
    assert str(tmp_path / "big") in before


def test_folder_reached_by_another_name_is_left_alone(tracked, tmp_path, monkeypatch):
    project, run_id = tracked
    (tmp_path / "link").symlink_to(project)
    monkeypatch.chdir(tmp_path / "link")
    before = recorded(project)
    assert open_store(Tracking(uri=f"sqlite:///{tmp_path / 'link' / 'mlflow.db'}")).client.get_run(run_id)
    assert recorded(project) == before


def test_measurements_that_wait_come_along(tracked, tmp_path, monkeypatch):
    project, run_id = tracked
    spool = spool_folder(Tracking())
    left = f'{{"run_id": "{run_id}", "uri": "sqlite:///{project}/mlflow.db"}}\n{{"metric": ["loss", 0.5, 1, 1]}}\n'
    (spool / "left.jsonl").write_text(left)
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    with open_run(Tracking(experiment="e"), name="next", tags={}):
        pass
    assert open_store(Tracking()).client.get_run(run_id).data.metrics == {"loss": 0.5}
    assert list(spool_folder(Tracking()).iterdir()) == []
