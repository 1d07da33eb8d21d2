"""The shared corpus of damaged and equivalent series, and real scans against SimpleITK; skipped where absent."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_writing import ALL, bad_scans
from shared_data import SHARED

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.scan import open_series

LIMITS = Limits()
CORPUS = SHARED / "bad_scans"
REAL = [
    *(SHARED / "data" / "lidc_ct" / f"LIDC-IDRI-000{number}" for number in (1, 2, 3)),
    SHARED / "data" / "readers" / "totalsegmentator" / "example_ct_dicom",
]
needs_corpus = pytest.mark.skipif(not CORPUS.exists(), reason="no shared/bad_scans beside the repository")
# One slice is a scan to this reader; a model of three dimensions refuses it, which is where this code comes from.
NOT_THE_READERS = {"dicom/bomb_rle_ratio"}


def canonical(voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, np.float32), affine))


def cases(expect: str) -> list[dict[str, str]]:
    return [case for case in bad_scans("dicom") if case["expect"] == expect and case["id"] not in NOT_THE_READERS]


@needs_corpus
@pytest.mark.parametrize("case", cases("reject"), ids=lambda case: case["id"])
def test_damaged_series_is_rejected_with_the_named_code(case: dict[str, str]) -> None:
    with pytest.raises(CaseError, match=case["code"]) as caught:
        open_series(CORPUS / case["path"], limits=LIMITS, modality="CT").read(ALL)
    assert caught.value.code == case["code"]
    assert "CANARY" not in str(caught.value)


@needs_corpus
@pytest.mark.parametrize("case", cases("flag"), ids=lambda case: case["id"])
def test_odd_series_is_flagged_with_the_named_code(case: dict[str, str]) -> None:
    scan = open_series(CORPUS / case["path"], limits=LIMITS, modality="CT")
    scan.read(ALL)
    assert case["code"] in [warning.code for warning in scan.warnings]


@needs_corpus
@pytest.mark.parametrize("case", cases("same"), ids=lambda case: case["id"])
def test_other_encoding_of_the_reference_is_the_same_image(case: dict[str, str]) -> None:
    scan = open_series(CORPUS / case["path"], limits=LIMITS, modality="CT")
    assert scan.warnings == ()
    found, reference = (
        canonical(scan.read(ALL), scan.affine),
        nib.as_closest_canonical(nib.load(CORPUS / "nifti" / "ref.nii")),
    )
    np.testing.assert_allclose(found.affine, reference.affine, atol=1e-4)
    np.testing.assert_allclose(found.get_fdata(), reference.get_fdata(), atol=1e-3)


@needs_corpus
def test_rle_bomb_is_one_slice_and_is_opened_without_decoding() -> None:
    scan = open_series(CORPUS / "dicom" / "bomb_rle_ratio", limits=LIMITS, modality="CT")
    assert scan.shape == (8192, 8192, 1)
    with pytest.raises(CaseError, match="max_voxels") as caught:
        open_series(CORPUS / "dicom" / "bomb_rle_ratio", limits=Limits(max_voxels=10**7))
    assert caught.value.code == Code.E_TOO_LARGE


@pytest.mark.parametrize("folder", REAL, ids=lambda folder: folder.name)
def test_real_series_agrees_with_simpleitk(folder: Path) -> None:
    if not folder.exists():
        pytest.skip("no shared/data beside the repository")
    scan = open_series(folder, limits=LIMITS, modality="CT")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    assert scan.modality == "CT"
    np.testing.assert_allclose(scan.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-3)
    np.testing.assert_allclose(scan.read(ALL), sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), atol=1e-3)
