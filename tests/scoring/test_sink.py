"""The sink: a row is committed or absent, whatever is killed, and is written once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.cases.case import Case
from pipeline.errors import Code, ModelError, UsageError
from pipeline.scoring import sink as sink_module
from pipeline.scoring.lock import exclusive
from pipeline.scoring.rows import Stamp, refusal, schema
from pipeline.scoring.sink import RunHeader, Sink

STAMP = Stamp("tiny@1", "1" * 64, "2" * 64)
HEADER = RunHeader(STAMP, 0, "/scans", 0.5)


def row(name, *, code=Code.E_FORMAT, status="rejected", signature="s"):
    case = Case(case_id=name, image=name, path=name)
    return refusal(case, STAMP, status=status, code=code, reason="made up", signature=signature)


def fill(folder, names, **options):
    sink = Sink(folder, HEADER, **options)
    for name in names:
        sink.append(row(name))
    return sink


def ids(folder):
    return pq.read_table(folder / "scores.parquet").column("case_id").to_pylist()


def test_rows_come_out_once_in_the_order_they_came_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_module, "_PART_ROWS", 3)
    counts = fill(tmp_path, "abcdefgh").finish()
    assert ids(tmp_path) == list("abcdefgh")
    assert (counts.total, counts.codes) == (8, {"E_FORMAT": 8})
    assert pq.read_schema(tmp_path / "scores.parquet").names == schema().names
    assert len(list((tmp_path / "parts").glob("*.parquet"))) == 3


def test_a_later_run_knows_what_is_finished_and_adds_to_it(tmp_path):
    fill(tmp_path, "abc").finish()
    sink = fill(tmp_path, "de")
    assert set(sink.finished) == set("abc")
    sink.finish()
    assert ids(tmp_path) == list("abcde")


def test_rows_that_were_not_committed_are_absent_and_half_parts_are_removed(tmp_path):
    fill(tmp_path, "abc").commit()
    fill(tmp_path, "de")  # dropped without a commit, as by a kill
    parts = tmp_path / "parts"
    (parts / "000002.parquet").write_bytes(b"half")
    (parts / ".000002.json.0123.tmp").write_text("{")
    sink = Sink(tmp_path, HEADER)
    assert set(sink.finished) == set("abc")
    assert {path.name for path in parts.iterdir()} == {"run.json", "000001.parquet", "000001.json"}


def test_the_last_row_of_a_case_counts(tmp_path):
    fill(tmp_path, "abc").commit()
    sink = Sink(tmp_path, HEADER)
    sink.append(row("b", code=Code.E_TRUNCATED))
    counts = sink.finish()
    table = pq.read_table(tmp_path / "scores.parquet")
    assert sorted(zip(*(table.column(name).to_pylist() for name in ("case_id", "code")), strict=True)) == [
        ("a", "E_FORMAT"),
        ("b", "E_TRUNCATED"),
        ("c", "E_FORMAT"),
    ]
    assert counts.total == 3


def test_a_row_that_failed_through_no_fault_of_the_case_is_not_kept(tmp_path):
    sink = Sink(tmp_path, HEADER)
    sink.append(row("a", status="failed", code=Code.E_INTERNAL))
    sink.append(row("b"))
    sink.commit()
    assert {name: done.kept for name, done in Sink(tmp_path, HEADER).finished.items()} == {"a": False, "b": True}


@pytest.mark.parametrize(
    "other",
    [
        RunHeader(Stamp("tiny@2", "3" * 64, "2" * 64), 0, "/scans", 0.5),
        RunHeader(STAMP, 0, "/others", 0.5),
        RunHeader(STAMP, 2, "/scans", 0.5),
        RunHeader(STAMP, 0, "/scans", 0.4),
    ],
)
def test_rows_of_another_model_or_input_are_refused_or_set_aside(tmp_path, other):
    fill(tmp_path, "ab").commit()
    with pytest.raises(UsageError, match=r"holds rows of another (model|source|members|threshold) .*--restart"):
        Sink(tmp_path, other)
    assert Sink(tmp_path, other, restart=True).finished == {}
    assert len(list(tmp_path.glob("parts-before-*/000001.parquet"))) == 1


def test_a_damaged_part_is_noticed(tmp_path):
    fill(tmp_path, "ab").commit()
    part = tmp_path / "parts" / "000001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ModelError, match=r"000001\.parquet: is not what was committed"):
        Sink(tmp_path, HEADER)


def test_a_full_disk_keeps_every_committed_row(tmp_path, monkeypatch):
    fill(tmp_path, "abc").commit()
    sink = fill(tmp_path, "de")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sink.commit()
    monkeypatch.undo()
    assert set(Sink(tmp_path, HEADER).finished) == set("abc")
    assert not list(tmp_path.rglob("*.tmp"))


WRITER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_sink import HEADER, row
from pipeline import files
from pipeline.scoring import sink as module
left = int(sys.argv[2])
def dying(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for name in ("fsync", "replace", "open"):
    setattr(files.os, name, dying(getattr(os, name)))
module.pq.write_table = dying(module.pq.write_table)
module._PART_ROWS = 3
from pipeline.scoring.lock import exclusive
with exclusive(Path(sys.argv[1])):
    sink = module.Sink(Path(sys.argv[1]), HEADER)
    for name in "abcdefgh":
        if name not in sink.finished:
            sink.append(row(name))
    sink.finish()
"""


@pytest.mark.slow
def test_a_kill_at_every_write_sync_and_rename_loses_and_repeats_no_row(tmp_path):
    code = WRITER.format(tests=str(Path(__file__).parent))
    moments = 0
    for moment in range(1, 200):
        folder = tmp_path / str(moment)
        folder.mkdir()
        first = subprocess.run([sys.executable, "-c", code, str(folder), str(moment)], capture_output=True, text=True)
        if first.returncode == 0:
            break
        assert first.returncode == -9, first.stderr
        if (folder / "scores.parquet").exists():
            assert ids(folder) == list("abcdefgh")  # never half a table under the final name
        moments += 1
        again = subprocess.run([sys.executable, "-c", code, str(folder), "100000"], capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert ids(folder) == list("abcdefgh")
        assert not list(folder.rglob("*.tmp"))
    assert moments > 20
    print(f"killed at {moments} moments: rows lost 0, repeated 0")


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    holder = "import sys, time; from pathlib import Path; from pipeline.scoring.lock import exclusive\n"
    holder += "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=rf"being written by process {process.pid} on "), exclusive(tmp_path):
        pass
    process.kill()
    process.wait()
    with exclusive(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
