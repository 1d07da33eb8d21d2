"""PostgreSQL as the tracking store, for real: a server of its own, started by the test."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.config.experiment import Tracking
from pipeline.tracking.promotion import find_version, move_champion, restore_champion, write_decision
from pipeline.tracking.runs import open_run
from pipeline.tracking.store import open_store

pytestmark = pytest.mark.slow


def binaries():
    """Debian's folder of initdb and pg_ctl, which it keeps off PATH; the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def as_user(command):
    """PostgreSQL refuses to run as root, so root lends it Debian's own account."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@pytest.fixture
def postgresql(tmp_path_factory):
    """URI of an empty database on a Unix socket; no port is opened."""
    pytest.importorskip("psycopg2", reason="the test-only package psycopg2-binary is not installed")
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL is here, but no account 'postgres' that root could lend it")
        place = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip())
        os.chown(place, owner.pw_uid, owner.pw_gid)
    else:
        place = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip())
    data, control = str(place / "data"), str(folder / "pg_ctl")

    def do(*command):
        subprocess.run(as_user(list(command)), check=True, capture_output=True, cwd="/", timeout=300)

    try:
        do(str(folder / "initdb"), "-D", data, "-U", "tracker", "-A", "trust", "--no-sync")
        do(control, "-D", data, "-w", "-t", "240", "-l", str(place / "log"), "start", "-o", f"-k {place} -h '' -F")
        yield f"postgresql+psycopg2://tracker@/postgres?host={place}"
    finally:
        subprocess.run(as_user([control, "-D", data, "-m", "immediate", "stop"]), capture_output=True, cwd="/")
        shutil.rmtree(place, ignore_errors=True)


def test_runs_registry_gate_and_rollback_work_on_postgresql(postgresql, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(uri=postgresql, artifacts=tmp_path / "artifacts", experiment="e")
    with open_run(tracking, name="run", tags={"kind": "test"}) as run:
        run.params({"training": {"max_epochs": 3}, "long": "x" * 9000})
        for step in range(20):
            run.metrics({"loss": 1.0 / (step + 1)}, step=step)
        run.text("hello", "note.txt")
        run.tags({"mlflow.note.content": "n" * 4_000})
    client = open_store(tracking).client
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics["loss"]) == ("FINISHED", 0.05)
    assert len(client.get_metric_history(run.run_id, "loss")) == 20
    assert (tmp_path / "artifacts" / "e" / run.run_id / "artifacts" / "note.txt").read_text() == "hello"

    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", source=(tmp_path / "artifacts").as_uri(), run_id=run.run_id)
    client.set_registered_model_alias("m", "champion", "1")
    store = open_store(tracking)
    first, second = (find_version(store, f"models:/m/{number}") for number in (1, 2))
    # Longer than PostgreSQL's columns: sqlite would not have noticed.
    write_decision(store, second, tags={"gate.reasons": "r" * 20_000}, text="t" * 20_000)
    move_champion(store, second, from_version=first)
    assert str(client.get_model_version_by_alias("m", "champion").version) == "2"
    assert restore_champion(store, "m", at="now").restored == first
