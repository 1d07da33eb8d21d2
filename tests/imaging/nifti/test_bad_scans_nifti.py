"""The shipped corpus of damaged, odd and equivalent NIfTI files: every code exact, nothing silently wrong."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import CENTER_MM, codes
from shared_data import shared

from pipeline.config.inputs import Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.envelope import Envelope, fit_envelope
from pipeline.imaging.preprocess import ModelInput, ScanRequest, preprocess

CONFIG = Preprocessing(region="lesion", size=(16, 16, 16), spacing_mm=(1.5, 1.5, 1.5))


def judged(root: Path, path: Path, envelope: Envelope | None = None) -> ModelInput:
    return preprocess(ScanRequest(path, CENTER_MM, root), CONFIG, modality="CT", envelope=envelope)


@pytest.fixture(scope="module")
def envelope(tmp_path_factory: pytest.TempPathFactory) -> Envelope:
    """Of a model trained on noisy variants of the reference, its block bright or dim."""
    reference = nib.load(shared("bad_scans") / "nifti" / "ref.nii")
    voxels, folder = np.asarray(reference.dataobj), tmp_path_factory.mktemp("variants")
    measures = []
    for seed in range(12):
        varied = np.where(voxels == 700, 700 if seed % 2 else 100, voxels) + np.random.default_rng(seed).normal(
            0, 20, voxels.shape
        )
        nib.save(nib.Nifti1Image(varied.astype(np.int16), reference.affine), folder / "a.nii")
        measures.append(judged(folder, folder / "a.nii").measures)
    return fit_envelope(measures, modality="CT")


def cases(expect: str) -> list[dict[str, str]]:
    try:
        root = shared("bad_scans")
    except pytest.skip.Exception:
        return []
    listed = json.loads((root / "manifest.json").read_text())
    return [case for case in listed if case["kind"] == "nifti" and case["expect"] == expect]


@pytest.mark.parametrize("case", cases("reject"), ids=lambda case: case["id"])
def test_damage_is_refused_with_its_code(case: dict[str, str], envelope: Envelope) -> None:
    root = shared("bad_scans")
    with pytest.raises(CaseError, match="E_") as caught:
        judged(root, root / case["path"], envelope)
    assert caught.value.code == case["code"]
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("case", cases("flag"), ids=lambda case: case["id"])
def test_oddities_are_scored_and_flagged(case: dict[str, str], envelope: Envelope) -> None:
    root = shared("bad_scans")
    found = judged(root, root / case["path"], envelope)
    assert case["code"] in codes(found.warnings)
    assert "CANARY" not in str(found.warnings)


@pytest.mark.parametrize("case", cases("same"), ids=lambda case: case["id"])
def test_equivalent_files_give_the_same_input(case: dict[str, str], envelope: Envelope) -> None:
    root = shared("bad_scans")
    reference, found = judged(root, root / "nifti" / "ref.nii"), judged(root, root / case["path"], envelope)
    np.testing.assert_allclose(found.voxels, reference.voxels, atol=1e-6)
    assert found.warnings == ()
