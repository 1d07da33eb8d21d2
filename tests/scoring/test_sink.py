"""The sink: a row is committed or absent, whatever is killed, and is written once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.cases.case import Case
from pipeline.errors import Code, ModelError, UsageError
from pipeline.scoring import sink as sink_module
from pipeline.scoring.lock import exclusive
from pipeline.scoring.rows import ModelIdentity, ScoreTables, refusal, schema
from pipeline.scoring.sink import RunHeader, Sink

STAMP = ModelIdentity("tiny@1", "1" * 64, "2" * 64)
HEADER = RunHeader(STAMP, 0, "/scans", 0.5)
TABLES = ScoreTables()


def row(name, *, code=Code.E_FORMAT, status="rejected", signature="s"):
    case = Case(case_id=name, image=name, path=name)
    return refusal(case, STAMP, status=status, code=code, reason="made up", signature=signature)


def fill(folder, names, **options):
    sink = Sink(folder, HEADER, TABLES, **options)
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
    fill(tmp_path, "de").commit()
    parts = tmp_path / "parts"
    (parts / "000002.json").unlink()  # killed before the record was written
    (parts / ".000002.json.0123456789ab.tmp").write_text("{")
    (tmp_path / ".scores.csv.0123456789ab.tmp").write_text("half")
    sink = Sink(tmp_path, HEADER, TABLES)
    assert set(sink.finished) == set("abc")
    assert {path.name for path in parts.iterdir()} == {"run.json", "000001.parquet", "000001.json"}
    assert not list(tmp_path.glob(".*.tmp"))


FOREIGN = {
    "parts/inventory.csv": "x",
    "parts/000007.parquet": "another program's",
    "parts/.000001.parquet.tmp": "x",
    "parts/2024.json": "[]",
    ".editor.tmp": "x",
    ".scores.csv.swp.tmp": "x",
    "scores-of-mine.csv": "x",
}


def write_files(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", [*FOREIGN, "scores.csv", "parts", "summary.txt"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_with_files_that_scoring_did_not_make_is_refused_and_untouched(tmp_path, name, restart):
    write_files(tmp_path, {name: "theirs"})
    with pytest.raises(UsageError, match=r"holds .* and no parts/run\.json, so scoring did not make it; name a new"):
        Sink(tmp_path, HEADER, TABLES, restart=restart)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["theirs"]


def test_other_files_that_came_into_an_output_folder_stay_there(tmp_path):
    fill(tmp_path, "abc").commit()
    write_files(tmp_path, FOREIGN)
    pq.write_table(pa.table({"case_id": [1], "x": [2.0]}), tmp_path / "parts" / "000008.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    sink = fill(tmp_path, "de")
    sink.finish()
    assert set(sink.finished) == set("abc")
    assert ids(tmp_path) == list("abcde")
    assert {path: path.read_bytes() for path in before} == before
    assert fill(tmp_path, "f").finish().total == 6


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_whose_first_run_was_killed_before_its_record_is_taken_up(tmp_path, restart):
    write_files(tmp_path, {"parts/.run.json.0123456789ab.tmp": "{", ".lock": ""})
    (tmp_path / "lost+found").mkdir()
    with exclusive(tmp_path):
        assert fill(tmp_path, "a", restart=restart).finish().total == 1
    assert not list(tmp_path.glob("parts-before-*"))


def test_a_restart_that_was_killed_in_between_is_taken_up(tmp_path):
    fill(tmp_path, "ab").finish()
    (tmp_path / "parts").rename(tmp_path / "parts-before-now")
    assert fill(tmp_path, "c").finish().total == 1


def cut(part):
    part.write_bytes(part.read_bytes()[:-7])


def of_another_program(part):
    pq.write_table(pa.table({"case_id": [1, 2], "value": [0.1, 0.2]}), part)


def without_a_column(part):
    pq.write_table(pq.read_table(part).drop_columns(["probability"]), part)


@pytest.mark.parametrize("damage", [cut, of_another_program, without_a_column])
def test_a_part_that_is_not_ours_is_one_line_also_when_its_record_fits(tmp_path, damage):
    fill(tmp_path, "ab").commit()
    part = tmp_path / "parts" / "000001.parquet"
    damage(part)
    record = {"rows": 2, "sha256": files.sha256_file(part), "committed_at": "now"}
    part.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"000001\.parquet: is not what was committed; restore it") as caught:
        Sink(tmp_path, HEADER, TABLES)
    assert "\n" not in str(caught.value)
    assert part.exists()


@pytest.mark.parametrize("text", ['{"rows": NaN}', "[" * 100_000, "\xff"])
def test_a_record_that_is_no_json_is_one_line(tmp_path, text):
    fill(tmp_path, "ab").commit()
    (tmp_path / "parts" / "000001.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"000001\.json: is not what was committed"):
        Sink(tmp_path, HEADER, TABLES)


def test_the_last_row_of_a_case_counts(tmp_path):
    fill(tmp_path, "abc").commit()
    sink = Sink(tmp_path, HEADER, TABLES)
    sink.append(row("b", code=Code.E_TRUNCATED))
    counts = sink.finish()
    table = pq.read_table(tmp_path / "scores.parquet")
    assert sorted(zip(*(table.column(name).to_pylist() for name in ("case_id", "code")), strict=True)) == [
        ("a", "E_FORMAT"),
        ("b", "E_TRUNCATED"),
        ("c", "E_FORMAT"),
    ]
    assert counts.total == 3


def test_a_row_that_failed_through_no_fault_of_the_case_or_ran_out_of_time_is_not_kept(tmp_path):
    sink = Sink(tmp_path, HEADER, TABLES)
    sink.append(row("a", status="failed", code=Code.E_INTERNAL))
    sink.append(row("b"))
    sink.append(row("c", code=Code.E_TIMEOUT))
    sink.commit()
    finished = Sink(tmp_path, HEADER, TABLES).finished
    assert {name: done.kept for name, done in finished.items()} == {"a": False, "b": True, "c": False}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (RunHeader(ModelIdentity("tiny@2", "3" * 64, "2" * 64), 0, "/scans", 0.5), r"model \(tiny@1, now tiny@2\)"),
        (RunHeader(STAMP, 0, "/others", 0.5), r"source \(/scans, now /others\)"),
        (RunHeader(STAMP, 2, "/scans", 0.5), r"members \(0, now 2\)"),
        (RunHeader(STAMP, 0, "/scans", 0.4), r"threshold \(0\.5, now 0\.4\)"),
    ],
)
def test_rows_of_another_model_or_input_are_refused_or_set_aside(tmp_path, other, says):
    fill(tmp_path, "ab").commit()
    with pytest.raises(UsageError, match=rf"holds rows of another {says}; .*--restart"):
        Sink(tmp_path, other, TABLES)
    assert Sink(tmp_path, other, TABLES, restart=True).finished == {}
    assert len(list(tmp_path.glob("parts-before-*/000001.parquet"))) == 1


def test_a_damaged_part_is_noticed(tmp_path):
    fill(tmp_path, "ab").commit()
    part = tmp_path / "parts" / "000001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ModelError, match=r"000001\.parquet: is not what was committed"):
        Sink(tmp_path, HEADER, TABLES)


def test_a_full_disk_keeps_every_committed_row(tmp_path, monkeypatch):
    fill(tmp_path, "abc").commit()
    sink = fill(tmp_path, "de")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sink.commit()
    monkeypatch.undo()
    assert set(Sink(tmp_path, HEADER, TABLES).finished) == set("abc")
    assert not list(tmp_path.rglob("*.tmp"))


# Every writer is a process of its own, forked from one that has imported everything: imports would be most of its time.
WRITERS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_sink import HEADER, TABLES, row
from pipeline import files
from pipeline.scoring import sink as module
from pipeline.scoring.lock import exclusive
module._PART_ROWS = 3
def write(folder, left):
    def dying(real):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    for name in ("fsync", "replace", "open"):
        setattr(files.os, name, dying(getattr(os, name)))
    module.pq.write_table = dying(module.pq.write_table)
    with exclusive(folder):
        sink = module.Sink(folder, HEADER, TABLES)
        for name in "abcdefgh":
            if name not in sink.finished:
                sink.append(row(name))
        sink.finish()
for line in sys.stdin:
    moment, folder = line.rstrip().split(" ", 1)
    writer = os.fork()
    if writer == 0:
        try:
            write(Path(folder), int(moment))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
"""
NEVER = 100_000


@pytest.fixture
def write_rows():
    """Write rows in a process that is killed at a moment, the n-th write, sync or rename; its exit code."""
    command = [sys.executable, "-c", WRITERS.format(tests=str(Path(__file__).parent))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:

        def write(folder: Path, *, killed_at: int) -> int:
            writers.stdin.write(f"{killed_at} {folder}\n")
            writers.stdin.flush()
            return int(writers.stdout.readline())

        yield write
        writers.stdin.close()


@pytest.mark.slow
def test_a_kill_at_every_write_sync_and_rename_loses_and_repeats_no_row(tmp_path, write_rows):
    moments = 0
    for moment in range(1, 200):
        folder = tmp_path / str(moment)
        folder.mkdir()
        code = write_rows(folder, killed_at=moment)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if (folder / "scores.parquet").exists():
            assert ids(folder) == list("abcdefgh")  # never half a table under the final name
        moments += 1
        assert write_rows(folder, killed_at=NEVER) == 0
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


def test_the_lock_follows_no_link_and_takes_no_file_of_another_program(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").symlink_to(mine)
    with pytest.raises(UsageError, match=r"\.lock: is a link, folder or device"), exclusive(out):
        pass
    (out / ".lock").unlink()
    os.mkfifo(out / ".lock")
    with pytest.raises(UsageError, match=r"\.lock: is a link, folder or device"), exclusive(out):
        pass
    (out / ".lock").unlink()
    for theirs in ("pid of the mail program", '{"pid": 7}', '["host", "pid", "since"]'):
        (out / ".lock").write_text(theirs)
        with pytest.raises(UsageError, match=r"\.lock: is not a lock of this program"), exclusive(out):
            pass
        assert (out / ".lock").read_text() == theirs
    assert mine.read_text() == "precious"


def test_the_lock_is_let_go_and_taken_again_by_the_same_process(tmp_path):
    before = {"host": "h" * 200, "pid": 1, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".lock").write_text(json.dumps(before))
    for _ in range(2):
        with exclusive(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_cannot_be_opened_is_not_called_a_link(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pipeline.scoring.lock.os.open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"), exclusive(tmp_path):
        pass
