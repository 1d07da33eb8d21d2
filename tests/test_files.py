"""Writing is whole or absent."""

import errno
import os
import stat
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UsageError
from pipeline.files import (
    atomic_folder,
    atomic_write,
    neutral,
    parse_json,
    private_folder,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_csv,
    write_json,
    write_text,
)


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "rows.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space"), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.txt"]


def test_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="killed"), atomic_folder(tmp_path / "model") as temporary:
        (temporary / "weights").write_bytes(b"half")
        raise RuntimeError("killed")
    assert os.listdir(tmp_path) == []


def test_folder_appears_whole_and_never_over_another(tmp_path):
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_text("x")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "sub" / "a").read_text() == "x"
    with pytest.raises(FileExistsError, match="not an empty folder"), atomic_folder(tmp_path / "model"):
        pass


DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def disk(monkeypatch):
    """What is synchronised and renamed, in order; a folder ends with a slash."""
    seen = []
    sync, replace = os.fsync, os.replace

    def syncing(handle):
        path = DESCRIPTORS.joinpath(str(handle)).readlink()
        seen.append(f"sync {path.name}{'/' if path.is_dir() else ''}")
        sync(handle)

    def replacing(old, new):
        seen.append(f"rename to {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(files.os, "fsync", syncing)
    monkeypatch.setattr(files.os, "replace", replacing)
    monkeypatch.setattr(files, "_temporary", lambda path: path.with_name("temporary"))
    return seen


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="asks /proc which file is synchronised")
def test_a_file_reaches_the_disk_before_its_name_and_the_name_with_its_folder(tmp_path, disk):
    write_text(tmp_path / "rows.txt", "whole")
    assert disk == ["sync temporary", "rename to rows.txt", f"sync {tmp_path.name}/"]


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="asks /proc which file is synchronised")
def test_a_folder_reaches_the_disk_with_all_that_is_in_it_before_its_name(tmp_path, disk):
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "sub").mkdir()
        for name in ("weights", "sub/a"):
            (temporary / name).write_text("x")
    named = disk.index("rename to model")
    assert sorted(disk[:named]) == ["sync a", "sync sub/", "sync temporary/", "sync weights"]
    assert disk[named + 1 :] == [f"sync {tmp_path.name}/"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "summary.json", {"auroc": float("nan")})
    assert os.listdir(tmp_path) == []


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        sha256_file(tmp_path / "a")
        == sha256_bytes(b"abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert sha256_json({"b": 1, "a": [1, 2]}) == sha256_json({"a": [1, 2], "b": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_its_owners_alone_and_what_was_there_keeps_its_mode(tmp_path, usual_umask):
    (tmp_path / "there").mkdir(mode=0o755)
    private_folder(tmp_path / "there" / "new" / "newer")
    write_text(tmp_path / "there" / "scores.csv", "x")
    write_text(tmp_path / "there" / "model.txt", "x", private=False)
    with atomic_write(tmp_path / "there" / "scores.csv") as temporary:
        temporary.write_text("y")
        assert mode(temporary) == 0o600
    with atomic_folder(tmp_path / "evaluation") as folder:
        (folder / "figures").mkdir()
    with atomic_folder(tmp_path / "model", private=False):
        pass
    modes = {str(path.relative_to(tmp_path)): f"{mode(path):o}" for path in tmp_path.rglob("*")}
    assert modes == {
        "there": "755",
        "there/new": "700",
        "there/new/newer": "700",
        "there/scores.csv": "600",
        "there/model.txt": "644",
        "evaluation": "700",
        "evaluation/figures": "755",
        "model": "755",
    }
    private_folder(tmp_path / "there")
    assert mode(tmp_path / "there") == 0o755
    with pytest.raises(NotADirectoryError, match="Not a directory"):
        private_folder(tmp_path / "there" / "scores.csv")


@pytest.mark.parametrize("with_links", [True, False])
def test_a_new_file_never_takes_a_name_that_is_taken_meanwhile(tmp_path, monkeypatch, with_links):
    if not with_links:

        def refuse(*_, **__):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(files.os, "link", refuse)
    path = tmp_path / "manifest.csv"
    write_text(path, "ours", new=True)
    path.unlink()
    with pytest.raises(FileExistsError, match="is not overwritten"), atomic_write(path, new=True) as temporary:
        temporary.write_text("ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="exists already and is not overwritten"):
        write_text(path, "ours", new=True)
    assert path.is_symlink()
    assert os.listdir(tmp_path) == ["manifest.csv"]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[" * 100_000, "{", "", "1" * 5000])
def test_json_that_is_none_or_not_finite_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"finite|nested|is not JSON|digits"):
        parse_json(text)


def test_reading_waits_for_no_pipe_and_fills_no_memory(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="expected a file"):
            read_json(files.Path(path))
    (tmp_path / "long.json").write_text("[1, 2, 3]")
    assert read_json(tmp_path / "long.json") == [1, 2, 3]
    with pytest.raises(ValueError, match="has 9 bytes, expected at most 8"):
        read_json(tmp_path / "long.json", most=8)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "\r=1", "=\n1", "-1 1"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert neutral(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "-", "+", "-12", "+1.5", "-3,5", "-1e-05", "007", "a=b", "'=x", "2026-01-01"])
def test_what_no_spreadsheet_runs_stays_as_it_is(text):
    assert neutral(text) == text


def test_a_table_keeps_exact_columns_or_is_not_written(tmp_path):
    rows = [("a", -1.5, None), ("b", 2, "=1+1")]
    assert write_csv(tmp_path / "t.csv", ("id", "x", "note"), rows, exact=("id",)) == 1
    assert (tmp_path / "t.csv").read_text() == "id,x,note\na,-1.5,\nb,2,'=1+1\n"
    with pytest.raises(UsageError, match=r"u.csv: not written: column 'note': 1 of 2 cells begin with"):
        write_csv(tmp_path / "u.csv", ("id", "x", "note"), rows, exact=("note",))
    assert os.listdir(tmp_path) == ["t.csv"]
