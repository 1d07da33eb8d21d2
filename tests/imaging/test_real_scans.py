"""Real scans: the same voxels and geometry as SimpleITK, and no real nodule refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scan_files import LIMITS, WHOLE
from shared_data import shared

from pipeline.config.inputs import Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.envelope import fit_envelope
from pipeline.imaging.nifti.scan import open_nifti
from pipeline.imaging.preprocess import ScanRequest, preprocess

SLICES = Preprocessing(dimensions=2, region="image", size=(64, 64), spacing_mm=(0.7, 0.7))


@pytest.mark.parametrize("name", ["example_ct_sm", "example_ct", "example_mr_sm", "example_seg"])
def test_simpleitk_reads_the_same_voxels_and_places(name: str) -> None:
    itk = pytest.importorskip("SimpleITK")
    path = shared("data/readers/totalsegmentator") / f"{name}.nii.gz"
    image = itk.ReadImage(str(path))
    scan = open_nifti(path, limits=LIMITS)
    np.testing.assert_allclose(scan.read(WHOLE), itk.GetArrayFromImage(image).T, atol=1e-3)
    for index in ((0, 0, 0), tuple(length - 1 for length in scan.shape), (3, 5, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(scan.affine[:3] @ [*index, 1], lps * (-1, -1, 1), atol=1e-3)


def test_real_ct_is_ct_and_its_segmentation_is_not() -> None:
    folder = shared("data/readers/totalsegmentator")
    config = Preprocessing(region="lesion", size=(24,) * 3, spacing_mm=(2.0,) * 3)
    for name, modality, code in (
        ("example_ct", "CT", None),
        ("example_ct_sm", "CT", None),
        ("example_mr_sm", "MR", None),
        ("example_seg", "CT", "E_RANGE|E_CONSTANT"),
        ("example_seg", "MR", "E_RANGE|E_CONSTANT"),
    ):
        path = folder / f"{name}.nii.gz"
        scan = open_nifti(path, limits=LIMITS)
        center = tuple(scan.affine[:3] @ [*((length - 1) / 2 for length in scan.shape), 1])
        if code is None:
            assert preprocess(ScanRequest(path, center), config, modality=modality).voxels.shape == (1, 24, 24, 24)
        else:
            with pytest.raises(CaseError, match=code):
                preprocess(ScanRequest(path, center), config, modality=modality)


def nodules() -> list[tuple[str, Path]]:
    root = shared("data/lidc_slices")
    with open(root / "manifest.csv", newline="") as handle:
        return [(row["patient_id"], root / row["image"]) for row in csv.DictReader(handle)]


@pytest.mark.slow
def test_no_real_nodule_is_refused_and_the_envelope_keeps_nearly_all() -> None:
    found = [(patient, preprocess(ScanRequest(path, None), SLICES, modality="CT")) for patient, path in nodules()]
    assert len(found) > 2000
    assert not any(item.warnings for _, item in found)
    patients = sorted({patient for patient, _ in found})
    chosen = set(np.random.default_rng(0).permutation(patients)[: len(patients) // 2])
    envelope = fit_envelope([item.measures for patient, item in found if patient in chosen], modality="CT")
    refused = 0
    for patient, item in found:
        if patient not in chosen:
            try:
                envelope.judge(item.measures)
            except CaseError:
                refused += 1
    assert refused <= 0.01 * len(found)
