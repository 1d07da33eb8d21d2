"""A scan decoded once: every region cut out of it is that of the file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.config.inputs import Limits, Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.decoded import decode
from pipeline.imaging.preprocess import ScanRequest, preprocess
from pipeline.imaging.read import open_scan

CONFIG = Preprocessing(dimensions=3, region="lesion", size=(24, 24, 24), spacing_mm=(1.0, 1.0, 1.0))
CENTERS = [(0.0, 0.0, 0.0), (10.3, -7.7, 12.1), (-30.0, 30.0, -30.0)]


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(3)
    affine = np.array([[0, -0.8, 0, 32], [0.7, 0, 0, -31.5], [0, 0, 1.3, -52], [0, 0, 0, 1]])
    image = nib.Nifti1Image(rng.normal(-700, 200, (90, 80, 80)).astype(np.int16), affine)
    image.header.set_slope_inter(1.0, -10.0)
    nib.save(image, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.mark.parametrize("center", CENTERS)
def test_a_region_of_the_decoded_scan_is_that_of_the_file(path, center):
    decoded = decode(open_scan(path, limits=Limits(), modality="CT"))
    from_file = preprocess(ScanRequest(path, center), CONFIG, modality="CT")
    from_memory = preprocess(ScanRequest(path, center, scan=decoded), CONFIG, modality="CT")
    np.testing.assert_array_equal(from_memory.voxels, from_file.voxels)
    assert from_memory.measures == from_file.measures
    assert from_memory.warnings == from_file.warnings
    assert from_memory.scan == from_file.scan


def test_a_decoded_scan_opens_no_file(path):
    decoded = decode(open_scan(path, limits=Limits(), modality="CT"))
    Path(path).unlink()
    assert preprocess(ScanRequest(path, CENTERS[0], scan=decoded), CONFIG, modality="CT").voxels.shape == (
        1,
        24,
        24,
        24,
    )
    with pytest.raises(CaseError, match="E_ROI_OUTSIDE"):
        preprocess(ScanRequest(path, (900.0, 0.0, 0.0), scan=decoded), CONFIG, modality="CT")
