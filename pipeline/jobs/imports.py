"""``malignancy import``: public datasets as manifests."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.import_lidc import import_lidc
from pipeline.datasets.import_medmnist import import_medmnist


def medmnist(file: Path, out: Path, *, positive: int) -> None:
    """Import a binary MedMNIST set."""
    manifest = import_medmnist(file, out, positive=positive)
    print(f"manifest: {manifest} (MedMNIST names no patients: every case counts as one)")


def lidc(dicom_root: Path, out: Path) -> None:
    """Import a TCIA download of LIDC-IDRI."""
    print(f"manifest: {import_lidc(dicom_root, out)} (label: radiologists' opinion, not pathology)")
