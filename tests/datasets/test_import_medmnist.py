"""MedMNIST archives become manifests with the official splits, and say that patients are unknown."""

from __future__ import annotations

import csv
import os
import pickle
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from shared_data import SHARED

from pipeline.datasets.import_medmnist import import_medmnist
from pipeline.errors import UsageError

REAL = SHARED / "data" / "medmnist" / "adrenalmnist3d.npz"


def archive(path: Path, *, shape: tuple[int, ...] = (28, 28), classes: int = 2, **changes: object) -> Path:
    random = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for split, count in (("train", 20), ("val", 13), ("test", 9)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, np.newaxis]
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def table(manifest: Path) -> list[dict[str, str]]:
    with open(manifest, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (28, 28, 28), (40, 32, 36), (40, 32)])
def test_every_image_becomes_a_case_with_its_own_values(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = archive(tmp_path / "set.npz", shape=shape)
    manifest = import_medmnist(file, tmp_path / "out", positive=1)
    rows = table(manifest)
    assert manifest == tmp_path / "out" / "manifest.csv"
    assert len(rows) == len({row["case_id"] for row in rows}) == 42
    stored = np.load(file)
    for row in rows[:3] + rows[-3:]:
        official, index = row["case_id"].split("-")[1:]
        path = manifest.parent / row["image"]
        values = np.asarray(Image.open(path)) if path.suffix == ".png" else np.asarray(nib.load(path).dataobj)
        np.testing.assert_array_equal(values, stored[f"{official}_images"][int(index)])
        assert int(row["original_label"]) == stored[f"{official}_labels"][int(index), 0]


def test_official_splits_are_kept_and_validation_is_halved_by_label(tmp_path: Path) -> None:
    rows = table(import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=1))
    assert Counter(row["split"] for row in rows) == {"train": 20, "validation": 7, "calibration": 6, "test": 9}
    for row in rows:
        official = row["case_id"].split("-")[1]
        assert row["split"] in {"train": ("train",), "val": ("validation", "calibration"), "test": ("test",)}[official]
    halves = Counter(
        (row["split"], row["original_label"]) for row in rows if row["split"] in ("validation", "calibration")
    )
    assert halves == {("validation", "0"): 4, ("validation", "1"): 3, ("calibration", "0"): 3, ("calibration", "1"): 3}


def test_import_is_the_same_every_time(tmp_path: Path) -> None:
    file = archive(tmp_path / "set.npz")
    first, second = (import_medmnist(file, tmp_path / name, positive=1).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("positive", [0, 1])
def test_positive_says_which_label_is_malignant(tmp_path: Path, positive: int) -> None:
    rows = table(import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=positive))
    assert {(row["original_label"], row["label"]) for row in rows} == {(str(positive), "1"), (str(1 - positive), "0")}


def test_patients_are_said_to_be_unknown(tmp_path: Path) -> None:
    rows = table(import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=1))
    assert {row["patients"] for row in rows} == {"unknown"}
    assert all(row["patient_id"] == row["case_id"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": 7}, r"has the labels \[0, 1, 2, 3, 4, 5, 6\] \(7 classes\); only binary sets"),
        ({"classes": 1}, "expected both 0 and 1"),
        ({"val_images": None}, "holds no val_images"),
        ({"train_labels": np.zeros((20, 14), np.uint8)}, "multi-label sets are not binary"),
        ({"train_labels": np.zeros((19, 1), np.uint8)}, "each of 20 images"),
        ({"train_images": np.zeros((20, 28, 28), np.float32)}, "expected uint8"),
        ({"train_images": np.zeros((20, 28), np.uint8)}, "expected uint8 pictures or volumes"),
    ],
)
def test_set_that_is_not_binary_medmnist_is_refused(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    file = archive(tmp_path / "set.npz", **changes)
    with pytest.raises(UsageError, match=match):
        import_medmnist(file, tmp_path / "out", positive=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.npz"]


def test_positive_must_be_a_label(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 0 or 1"):
        import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=2)


def test_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=1)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        import_medmnist(archive(tmp_path / "set.npz"), tmp_path / "out", positive=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.npz"]


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.system, ("touch pickled",))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", pickle.dumps(_Bomb())])
def test_file_that_is_no_archive_is_refused_and_never_unpickled(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot be read as \.npz"):
        import_medmnist(tmp_path / "set.npz", tmp_path / "out", positive=1)
    np.savez(tmp_path / "set.npz", train_images=np.array([_Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"holds no|cannot be read"):
        import_medmnist(tmp_path / "set.npz", tmp_path / "out", positive=1)
    archive(tmp_path / "set.npz", train_images=np.array([_Bomb()] * 20, dtype=object))
    with pytest.raises(UsageError, match=r"cannot be read as \.npz"):
        import_medmnist(tmp_path / "set.npz", tmp_path / "out", positive=1)
    assert not (tmp_path / "pickled").exists()


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_truncated_archive_is_refused(tmp_path: Path, cut: float) -> None:
    file = archive(tmp_path / "set.npz")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * cut)])
    with pytest.raises(UsageError, match=r"cannot be read as \.npz"):
        import_medmnist(file, tmp_path / "out", positive=1)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        import_medmnist(tmp_path / "set.npz", tmp_path / "out", positive=1)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="no shared/data/medmnist beside the repository")
def test_official_file_has_the_official_counts(tmp_path: Path) -> None:
    manifest = import_medmnist(REAL, tmp_path / "out", positive=1)
    rows = table(manifest)
    assert Counter(row["split"] for row in rows) == {"train": 1188, "validation": 49, "calibration": 49, "test": 298}
    assert nib.load(manifest.parent / rows[0]["image"]).shape == (28, 28, 28)
