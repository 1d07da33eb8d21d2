"""A store that cannot be used says why in one line, soon, and without a password."""

import os
import re
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.errors import UsageError
from pipeline.tracking import sqlite_file
from pipeline.tracking.faults import StoreError, store_reason
from pipeline.tracking.runs import open_run, spool_folder
from pipeline.tracking.scoring_runs import record_scoring
from pipeline.tracking.store import open_store, tracking_uri

SUMMARY = {
    "model": "m@0123",
    "model_digest": "0" * 64,
    "preprocessing_digest": "1" * 64,
    "input_digest": None,
    "label_source": "histology",
    "intensities": "real",
    "ended_at": "2026-01-01T00:00:00+00:00",
    "drift_alerts": [],
    "drift": {"probability": 0.125},
    "drift_tests": {"probability": {"index": 0.125, "effect": 0.0625, "p_adjusted": 0.25, "alert": False}},
    "drift_sentences": [],
    "codes": {"E_FORMAT": 2},
    "probability_histogram": [1, 2, 3],
    "cases": 6,
    "scored": 4,
    "flagged": 0,
    "rejected": 2,
    "failed": 0,
    "scored_by_this_run": 6,
    "unscored_share": 1 / 3,
    "seconds": 2.0,
    "scans_per_second": 3.0,
}


def refusal(tracking):
    with pytest.raises(StoreError, match=r"^tracking store ") as caught:
        open_store(tracking)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def newer_schema(path):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'from_the_future'")


def not_a_database(path):
    path.write_bytes(b"\x01" * 9000)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[100:4096] = os.urandom(3996)
    path.write_bytes(content)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (newer_schema, "from_the_future|schema"),
        (not_a_database, "is not a SQLite database; restore the file"),
        (damaged, "malformed; restore the file"),
        (a_folder, "is a folder; expected a SQLite file"),
    ],
)
def test_file_that_is_no_usable_store_says_why(project, spoil, reason):
    spoil(project / "mlflow.db")
    assert re.search(reason, refusal(Tracking()))


def test_locked_file_is_one_line_and_not_waited_for_long(project, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(project / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    assert "database is locked; another program holds the database" in refusal(Tracking())
    holder.close()
    open_store(Tracking())


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql+psycopg://me:pass@127.0.0.1:9/db", r"pip install psycopg\[binary\]"),
        ("http://me:pass@127.0.0.1:9", "Connection refused; check tracking.uri and the server"),
        ("file:///nowhere/mlruns", "in maintenance mode"),
        ("bogus://me:pass@host/x", "unsupported URI"),
    ],
)
def test_store_that_is_away_gives_its_own_reason_and_no_password(monkeypatch, uri, reason):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if "psycopg" in uri:
        monkeypatch.setitem(sys.modules, "psycopg", None)
    text = refusal(Tracking(uri=uri))
    assert re.search(reason, text)
    assert "pass" not in text


def test_proxy_is_named_when_it_is_what_does_not_answer(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:pass@127.0.0.1:9")
    text = refusal(Tracking(uri="http://mlflow.example"))
    assert re.search("the proxy: .*refused; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY", text)
    assert "pass" not in text


def test_dead_database_server_is_not_tried_for_minutes(monkeypatch):
    pytest.importorskip("psycopg2", reason="the test-only package psycopg2-binary is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert "refused" in refusal(Tracking(uri="postgresql+psycopg2://me:pass@127.0.0.1:9/db"))
    assert sum(waited) < 5  # MLflow's own tries add up to 100 s


@pytest.mark.parametrize("name", ["what?", "a%20b", "50% off", "ä b#c"])
def test_any_folder_name_keeps_its_database(tmp_path, monkeypatch, empty_store, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / name / "in"
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.chdir(folder)
    with open_run(Tracking(experiment="e"), name="run", tags={}) as made:
        made.text("hello", "note.txt")
    assert sqlite3.connect(folder / "mlflow.db").execute("SELECT name FROM runs").fetchall() == [("run",)]
    assert [path.name for path in tmp_path.rglob("mlflow.db")] == ["mlflow.db"]
    absolute = Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}")
    assert open_store(absolute).client.get_run(made.run_id).info.run_name == "run"


def test_escaped_path_and_options_still_mean_what_sqlalchemy_means(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "my store").mkdir()
    escaped = Tracking(uri=f"sqlite:///{tmp_path}/my%20store/mlflow.db?timeout=30")
    assert tracking_uri(escaped) == f"sqlite:///{tmp_path}/my%20store/mlflow.db?timeout=30"


def test_deleted_experiment_says_how_to_restore_it(project):
    store = open_store(Tracking())
    number = store.client.create_experiment("gone")
    store.client.delete_experiment(number)
    expected = pytest.raises(UsageError, match=rf"'gone' was deleted in .*restore --experiment-id {number}")
    with expected as caught, open_run(Tracking(experiment="gone"), name="run", tags={}):
        pass
    assert "\n" not in str(caught.value)


def test_reason_takes_the_databases_own_words_without_the_statement():
    from sqlalchemy.exc import OperationalError

    error = OperationalError("INSERT INTO runs", {}, sqlite3.OperationalError("database or disk is full"))
    assert store_reason(error) == "database or disk is full; free some space"


def test_record_of_a_scoring_waits_for_a_store_that_is_away_and_is_made_once(project, monkeypatch, capsys):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(project / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    assert record_scoring(SUMMARY) is None
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert said.startswith("warning: the rows are written; this run is not in the tracking store yet: tracking store")
    holder.close()
    (waiting,) = spool_folder(Tracking()).iterdir()
    text = waiting.read_text()
    for _ in range(2):  # a file that was sent, and could not be removed, is sent to the same run
        waiting.write_text(text)
        with open_run(Tracking(experiment="other"), name="next", tags={}):
            pass
    store = open_store(Tracking())
    experiment = store.client.get_experiment_by_name("malignancy-scoring").experiment_id
    (made,) = store.client.search_runs([experiment])
    assert (made.info.status, made.info.run_name) == ("FINISHED", "score m@0123 2026-01-01T00:00")
    assert made.data.metrics["code_E_FORMAT"] == 2
    assert made.data.metrics["drift_probability"] == 0.125
    assert made.data.metrics["drift_effect_probability"] == 0.0625
    assert made.data.metrics["drift_p_probability"] == 0.25
    assert (made.data.tags["drift_alerts"], made.data.tags["drift"]) == ("none", "none")
    assert made.data.tags["label_source"] == "histology"
    assert list(spool_folder(Tracking()).iterdir()) == []


def test_record_that_fits_nowhere_is_said_and_costs_nothing(project, monkeypatch, capsys):
    not_a_database(project / "mlflow.db")
    spool_folder(Tracking()).write_text("a file where the folder should be")
    assert record_scoring(SUMMARY) is None
    assert "its record cannot be kept" in capsys.readouterr().err


def test_password_is_in_no_spool_file(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pass@127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    assert record_scoring(SUMMARY) is None
    (waiting,) = spool_folder(Tracking()).iterdir()
    assert "http://***@127.0.0.1:9" in waiting.read_text()
    assert "pass" not in waiting.read_text()


def test_interface_of_a_store_without_driver_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pass@127.0.0.1:9/db")
    assert run(["ui"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install psycopg" in said
    assert "pass@" not in said


def test_full_spool_disk_does_not_stop_a_run(project, monkeypatch, capsys):
    with open_run(Tracking(experiment="e"), name="run", tags={}) as made:
        made.spool._file.close()
        made.spool._file = open("/dev/full", "w")  # noqa: SIM115
        made.metrics({"loss": 0.5}, step=1)
        made.metrics({"loss": 0.25}, step=2)
    store = open_store(Tracking())
    assert store.client.get_run(made.run_id).data.metrics == {"loss": 0.25}
    assert store.client.get_run(made.run_id).info.status == "FINISHED"
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert not Path(made.spool.path).exists()


def test_fault_of_the_store_is_not_taken_for_what_was_handled_before_it():
    from mlflow.exceptions import MlflowException

    error = MlflowException("Run 'x' not found")
    error.__context__ = FileNotFoundError(2, "No such file", "/a/file/of/the/work")
    assert store_reason(error) == "Run 'x' not found"


def test_store_that_fills_up_prints_no_traceback(project, capfd):
    """SQLite knows a small disk as ``max_page_count``, which each connection is told anew."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def fill(connection, *_):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    expected = pytest.raises(StoreError, match=r"stopped answering: database or disk is full; free some space$")
    try:
        with expected, open_run(Tracking(experiment="e"), name="run", tags={}) as made:
            event.listen(Pool, "checkout", fill)
            for number in range(100):
                made.tags({f"{number}-{part}": "x" * 4000 for part in range(50)})
    finally:
        event.remove(Pool, "checkout", fill)
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "parameters" not in said
