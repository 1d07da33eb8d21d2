"""MedMNIST archives as manifests: https://medmnist.com (npz files of images, labels and official splits).

The official splits are kept. MedMNIST has no calibration split, so the official validation split is divided in two,
seeded and stratified by label. MedMNIST names no patients: ``patient_id`` is the case, and the column ``patients`` says
``unknown`` on every row, because one patient may be in several splits and every interval is then too narrow.

Images have no geometry. 2D pictures become PNG; volumes become NIfTI with 1 mm voxels and the array's axes as R, A, S,
which is nominal. Values stay the stored 8-bit ones.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.errors import UsageError
from pipeline.files import atomic_folder, write_csv

Array = NDArray[np.uint8]

_SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}
_COLUMNS: Final = ("case_id", "image", "label", "patient_id", "split", "original_label", "patients")
_SEED: Final = 0
_MOST_BYTES: Final = 16 * 2**30  # of one array; the largest official one has 6 GB


def import_medmnist(file: Path, out: Path, *, positive: int) -> Path:
    """Write a binary MedMNIST set as images and a manifest.

    Args:
        file: an official ``.npz`` of any size (28, 64, 128, 224).
        out: folder to make; it appears when it is whole, or not at all.
        positive: the original label (0 or 1) that means malignant and becomes 1.

    Returns:
        The manifest's path.

    Raises:
        UsageError: when the file is no binary MedMNIST set, ``positive`` is not one of its labels, or ``out`` exists.
    """
    if positive not in (0, 1):
        raise UsageError(f"--positive {positive}: expected 0 or 1, the original label that means malignant")
    images, labels = _load(file)
    try:
        with atomic_folder(out, private=False) as folder:
            rows = list(_write_cases(folder, images, labels, positive, file.stem))
            table = ([row[name] for name in _COLUMNS] for row in rows)
            write_csv(folder / "manifest.csv", _COLUMNS, table, private=False)
    except FileExistsError as error:
        raise UsageError(str(error)) from None
    return out / "manifest.csv"


def _load(file: Path) -> tuple[dict[str, Array], dict[str, NDArray[np.int64]]]:
    """Images and labels of each official split, checked."""
    try:
        # allow_pickle stays off: an object array would run code of the file.
        with np.load(file, allow_pickle=False) as archive:
            names = [f"{split}_{kind}" for split in _SPLITS for kind in ("images", "labels")]
            missing = [name for name in names if name not in archive]
            if missing:
                raise UsageError(f"{file}: holds no {missing[0]}; expected an official MedMNIST .npz")
            _check_sizes(file)
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file; download it from https://medmnist.com") from None
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # numpy raises ValueError for a pickle and for most damage; TypeError or AttributeError for a bare .npy.
        raise UsageError(f"{file}: cannot be read as .npz ({type(error).__name__}); download it again") from None
    images = {split: arrays[f"{split}_images"] for split in _SPLITS}
    labels = {split: _check(file, split, images[split], arrays[f"{split}_labels"]) for split in _SPLITS}
    _check_classes(file, labels)
    return images, labels


def _check_sizes(file: Path) -> None:
    """Refuse an archive that claims more than any official one before it is unpacked."""
    with zipfile.ZipFile(file) as archive:
        largest = max(info.file_size for info in archive.infolist())
    if largest > _MOST_BYTES:
        raise UsageError(f"{file}: an array of {largest} bytes, expected at most {_MOST_BYTES}")


def _check(file: Path, split: str, images: Array, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Labels of a split, shape (n,)."""
    if images.dtype != np.uint8 or not _known_shape(images):
        raise UsageError(
            f"{file}: {split} images are {images.dtype} {images.shape}; expected uint8 pictures or volumes"
        )
    if labels.dtype.kind not in "ui" or labels.shape not in ((len(images),), (len(images), 1)):
        reason = f"expected one whole number for each of {len(images)} images; multi-label sets are not binary"
        raise UsageError(f"{file}: {split} labels are {labels.dtype} {labels.shape}; {reason}")
    return labels.reshape(-1).astype(np.int64)


def _known_shape(images: Array) -> bool:
    """(n, y, x), (n, y, x, 3) or (n, x, y, z); a last axis of 3 is colour."""
    return images.ndim in (3, 4) and min(images.shape[1:3]) >= 8


def _check_classes(file: Path, labels: Mapping[str, NDArray[np.int64]]) -> None:
    values_present = sorted({int(value) for values in labels.values() for value in values})
    if not set(values_present) <= {0, 1}:
        reason = "only binary sets can be imported; join the classes into two first"
        raise UsageError(f"{file}: has the labels {values_present[:12]} ({len(values_present)} classes); {reason}")
    if len(values_present) < 2:
        raise UsageError(f"{file}: every label is {values_present}; expected both 0 and 1")


def _write_cases(
    folder: Path, images: Mapping[str, Array], labels: Mapping[str, NDArray[np.int64]], positive: int, name: str
) -> Iterator[dict[str, object]]:
    (folder / "images").mkdir()
    for official, split in _SPLITS.items():
        calibration = _half(labels[official]) if official == "val" else frozenset()
        for index, image in enumerate(images[official]):
            case_id = f"{name}-{official}-{index:05d}"
            original = int(labels[official][index])
            yield {
                "case_id": case_id,
                "image": f"images/{_write_image(folder / 'images', case_id, image)}",
                "label": int(original == positive),
                "patient_id": case_id,
                "split": "calibration" if index in calibration else split,
                "original_label": original,
                "patients": "unknown",
            }


def _half(labels: NDArray[np.int64]) -> frozenset[int]:
    """Indices of half of the cases of each label; of an odd number, the smaller half."""
    random = np.random.default_rng(_SEED)
    chosen: list[int] = []
    for label in (0, 1):
        members = random.permutation(np.flatnonzero(labels == label))
        chosen += members[: len(members) // 2].tolist()
    return frozenset(chosen)


def _write_image(folder: Path, case_id: str, image: Array) -> str:
    """Write one image; returns its file name."""
    if image.ndim == 2 or image.shape[-1] == 3:  # (y, x) or (y, x, 3)
        Pillow.fromarray(image).save(folder / f"{case_id}.png")
        return f"{case_id}.png"
    volume: Any = nib.Nifti1Image(image, np.eye(4))  # type: ignore[no-untyped-call]
    volume.header.set_xyzt_units("mm")
    nib.save(volume, folder / f"{case_id}.nii.gz")
    return f"{case_id}.nii.gz"
