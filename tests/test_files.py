"""Writing is whole or absent."""

import os

import pytest

from pipeline.files import atomic_folder, atomic_write, sha256_bytes, sha256_file, sha256_json, write_json, write_text


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
