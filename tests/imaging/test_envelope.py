"""What a model accepts: learned from few or many cases, wide enough for their like, closed to what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import AFFINE, CENTER_MM, LESION, codes, lesion, phantom, save

from pipeline.errors import CaseError
from pipeline.imaging.envelope import Envelope, fit_envelope
from pipeline.imaging.preprocess import ScanRequest, preprocess

CASES = [
    {
        "intensity_q05": -900.0 + i,
        "intensity_q50": -100.0 * i,
        "share_inside": 1.0 - i / 100,
        "spacing_in_plane_mm": 0.6 + i / 100,
    }
    for i in range(20)
]


def test_training_cases_are_inside_without_a_warning() -> None:
    envelope = fit_envelope(CASES, modality="CT")
    assert all(envelope.judge(case) == () for case in CASES)


@given(
    st.lists(st.tuples(*[st.floats(-2000, 2000)] * 2, st.floats(0.3, 5)), min_size=1, max_size=30),
    st.sampled_from(["CT", "MR", "other"]),
)
@settings(max_examples=60, deadline=None)
def test_any_training_cases_are_inside_and_survive_json(
    values: list[tuple[float, float, float]], modality: str
) -> None:
    cases = [{"intensity_q01": a, "intensity_q99": b, "spacing_slice_mm": c} for a, b, c in values]
    envelope = fit_envelope(cases, modality=modality)
    assert all(envelope.judge(case) == () for case in cases)
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope


def test_refusal_names_measure_value_and_limits() -> None:
    envelope = fit_envelope(CASES, modality="CT")
    with pytest.raises(CaseError, match=r"E_OUT_OF_ENVELOPE: intensity_q05 is 174, accepted -1150 to -631: "):
        envelope.judge(CASES[0] | {"intensity_q05": 174.0})
    with pytest.raises(CaseError, match="spacing_in_plane_mm is 5"):
        envelope.judge(CASES[0] | {"spacing_in_plane_mm": 5.0})
    with pytest.raises(CaseError, match="intensity_q05 cannot be measured"):
        envelope.judge({})
    with pytest.raises(CaseError, match="intensity_q05 cannot be measured"):
        envelope.judge(CASES[0] | {"intensity_q05": float("nan")})


def test_near_the_border_it_is_flagged() -> None:
    found = fit_envelope(CASES, modality="CT").judge(CASES[0] | {"intensity_q05": -700.0})
    assert codes(found) == ["W_NEAR_ENVELOPE"]
    assert "intensity_q05 is -700" in found[0].detail


def test_a_region_wholly_inside_is_never_refused_for_it() -> None:
    envelope = fit_envelope([{"share_inside": 0.3}, {"share_inside": 0.4}], modality="CT")
    assert envelope.judge({"share_inside": 1.0}) == ()


def test_fewer_cases_give_wider_limits() -> None:
    few, many = (fit_envelope(cases, modality="MR") for cases in (CASES[::19], CASES))
    assert few.limits["share_inside"].lower <= many.limits["share_inside"].lower
    assert few.limits["spacing_in_plane_mm"].upper > many.limits["spacing_in_plane_mm"].upper


def test_slices_of_another_plane_are_refused() -> None:
    envelope = fit_envelope([{"slice_axis": 2.0}] * 3, modality="MR")
    with pytest.raises(CaseError, match="slice_axis is 1, accepted 2 to 2"):
        envelope.judge({"slice_axis": 1.0})


def test_no_cases_teach_nothing() -> None:
    with pytest.raises(ValueError, match="at least one training case"):
        fit_envelope([], modality="CT")


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"modality": "CT", "cases": 1, "limits": []},
        {"modality": "CT", "cases": 1, "limits": {"a": [1, 2, 3]}},
        {"modality": "CT", "cases": 1, "limits": {"a": [1, 2, 3, float("inf")]}},
        {"modality": "CT", "cases": 1, "limits": {"a": ["1", 2, 3, 4]}},
    ],
    ids=str,
)
def test_damaged_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="envelope: "):
        Envelope.from_json(value)  # type: ignore[arg-type]


def test_model_of_small_crops_accepts_the_lesion_in_the_whole_scan(tmp_path: Path) -> None:
    measures = []
    for seed in range(6):
        voxels = phantom(seed, (64, 60, 40))
        center = tuple(AFFINE[:3, :3] @ (5, 13, 11) + AFFINE[:3, 3])
        part = save(tmp_path / "crop.nii.gz", voxels[:14, 6:22, 3:19], AFFINE @ _shift(0, 6, 3))
        measures.append(lesion(part, center).measures)
    envelope = fit_envelope(measures, modality="CT")
    whole = save(tmp_path / "whole.nii.gz", phantom(9, (64, 60, 40)))
    found = preprocess(ScanRequest(whole, center), LESION, modality="CT", envelope=envelope)
    assert found.warnings == ()


def test_unrescaled_lung_is_refused_whatever_the_range_rules_miss(tmp_path: Path) -> None:
    envelope = fit_envelope(
        [lesion(save(tmp_path / "a.nii", phantom(seed))).measures for seed in range(5)], modality="CT"
    )
    shifted = save(tmp_path / "b.nii", phantom(7) + 400)
    with pytest.raises(CaseError, match="E_OUT_OF_ENVELOPE: intensity"):
        preprocess(ScanRequest(shifted, CENTER_MM), LESION, modality="CT", envelope=envelope)


def test_envelope_of_another_modality_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", phantom())
    envelope = Envelope("MR", 1, {})
    with pytest.raises(CaseError, match="E_OUT_OF_ENVELOPE: modality CT, but the model was trained on MR"):
        preprocess(ScanRequest(path, CENTER_MM), LESION, modality="CT", envelope=envelope)


def _shift(*voxels: int) -> np.ndarray:
    shift = np.eye(4)
    shift[:3, 3] = voxels
    return shift
