"""The search of one scan: candidates where the lesions are, in world millimetres, however the scan is stored."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from chest_scans import chest, write_chest
from small_detectors import save_small_detector
from torch import nn
from torch.nn import functional

from pipeline.cases.case import Case
from pipeline.config.detection import CandidateRules, DetectionGrid, DetectorNetwork
from pipeline.errors import CaseError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.models.detector import DetectorOutput
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.finding.finder import _LONGEST_WINDOW, _OVERLAP, Finder, _window_side

BALLS = [((-30.0, 12.0, 20.0), 10.0), ((40.0, -20.0, -31.0), 14.0)]


class BrightBalls(nn.Module):
    """A stand-in for the network: heat where a cell is brighter than its surroundings, as a ball in the lung is."""

    side_multiple = 8

    def forward(self, images):
        middle = functional.avg_pool3d(images, 3, stride=2, padding=1, count_include_pad=False)
        around = functional.avg_pool3d(images, 19, stride=2, padding=9, count_include_pad=False)
        heat = 40 * (middle - around - 0.5)
        nothing = torch.zeros_like(heat)
        return DetectorOutput(torch.cat([heat, -heat, nothing], 1), nothing.repeat(1, 3, 1, 1, 1), nothing + 2.0)


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "detector"
    rules = CandidateRules(lowest_probability=0.5, most=8)
    save_small_detector(folder, candidates=rules, grid=DetectionGrid(spacing_mm=2.0, patch=32))
    return Finder(replace(load_detector(folder), network=BrightBalls()))


def case_of(path, **settings):
    return Case(case_id=path.name, image=path.name, path=path, **settings)


def distances(found, balls=BALLS):
    centers = np.array([candidate.center_mm for candidate in found.candidates])
    return [np.linalg.norm(centers - np.array(center), axis=1).min() for center, _ in balls]


def test_every_ball_is_found_and_nothing_else(finder, tmp_path):
    found = finder.search(case_of(write_chest(tmp_path / "chest.nii.gz", BALLS)))
    assert len(found.candidates) == 2
    assert max(distances(found)) < 3.5  # of a cell of 4 mm, half a diagonal
    assert [candidate.diameter_mm for candidate in found.candidates] == [pytest.approx(np.exp(2.0), abs=1e-3)] * 2
    first = found.candidates[0].probabilities
    assert first[0] > 0.9
    assert first[1:] == (pytest.approx(1 - first[0]), 0.5)  # one sigmoid a class
    assert [each.probabilities[0] for each in found.candidates] == sorted(
        (each.probabilities[0] for each in found.candidates), reverse=True
    )
    assert found.measures["lung_ml"] > 500
    assert found.facts.shape == (120, 100, 70)


def test_a_chest_without_balls_has_no_candidate(finder, tmp_path):
    assert finder.search(case_of(write_chest(tmp_path / "chest.nii.gz", []))).candidates == ()


@pytest.mark.parametrize("axes", ["RAS", "SLP", "PSR"])
def test_the_stored_orientation_moves_no_candidate(finder, tmp_path, axes):
    image = nib.Nifti1Image(*_int16(*chest(BALLS)))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes)))
    )
    nib.save(image, tmp_path / "stored.nii.gz")
    nib.save(turned, tmp_path / "turned.nii.gz")
    stored, other = (finder.search(case_of(tmp_path / f"{name}.nii.gz")) for name in ("stored", "turned"))
    np.testing.assert_allclose(
        [each.center_mm for each in other.candidates], [each.center_mm for each in stored.candidates], atol=2e-3
    )
    assert other.facts.orientation == axes


def test_a_gantry_tilt_is_flagged_and_its_balls_are_found_in_their_place(finder, tmp_path):
    voxels, affine = chest([])
    tilted = affine.copy()
    tilted[1, 2] = np.tan(np.radians(12)) * affine[2, 2]  # each slice is shifted along A
    index = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), -1)
    world = index @ tilted[:3, :3].T + tilted[:3, 3]
    for center, diameter in BALLS:
        voxels[np.linalg.norm(world - np.array(center), axis=-1) < diameter / 2] = 50
    nib.save(nib.Nifti1Image(*_int16(voxels, tilted)), tmp_path / "tilted.nii.gz")
    found = finder.search(case_of(tmp_path / "tilted.nii.gz"))
    assert [warning.code for warning in found.warnings] == ["W_SHEAR"]
    assert max(distances(found)) < 3.0


def test_probabilities_are_calibrated(finder, tmp_path):
    path = write_chest(tmp_path / "chest.nii.gz", BALLS[:1])
    plain = finder.search(case_of(path)).candidates[0].probabilities[0]
    cooler = replace(finder.detector, calibrators=(Calibrator("temperature", {"temperature": 2.0}),) * 3)
    cooled = Finder(cooler).search(case_of(path)).candidates[0].probabilities[0]
    logit = np.log(plain / (1 - plain))
    assert cooled == pytest.approx(1 / (1 + np.exp(-logit / 2)), rel=1e-4)


def test_a_scan_larger_than_a_window_is_searched_as_a_whole(finder, tmp_path, monkeypatch):
    case = case_of(write_chest(tmp_path / "chest.nii.gz", BALLS))
    whole = finder.search(case).candidates
    monkeypatch.setattr("pipeline.scoring.finding.finder._LONGEST_WINDOW", 64)
    parts = finder.search(case).candidates
    np.testing.assert_allclose([each.center_mm for each in parts], [each.center_mm for each in whole], atol=1e-3)
    np.testing.assert_allclose(
        [each.probabilities for each in parts], [each.probabilities for each in whole], atol=0.02
    )


@pytest.mark.parametrize("length", [161, 192, 208, 240, 304, 368, 1000])
def test_windows_cover_a_side_and_are_no_longer_than_they_need_be(length):
    side = -(-length // 16) * 16
    window = _window_side(side, 16)
    assert window % 16 == 0
    assert window <= _LONGEST_WINDOW
    starts = range(0, side, int(window * (1 - _OVERLAP)))
    count = next(number for number, start in enumerate(starts, start=1) if start + window >= side)
    longest = next(
        number
        for number, start in enumerate(range(0, side, int(_LONGEST_WINDOW * (1 - _OVERLAP))), start=1)
        if start + _LONGEST_WINDOW >= side
    )
    assert count == longest
    assert count * window < side + (count - 1) * _OVERLAP * window + 16 * count  # what overlaps, and rounding


def test_the_mean_over_flips_finds_the_same_in_a_mirror_image(tmp_path):
    settings = {"network": DetectorNetwork(width=4, levels=2, average_flips=True)}
    rules = CandidateRules(lowest_probability=0.0, most=30)
    save_small_detector(tmp_path / "flips", candidates=rules, **settings)
    save_small_detector(tmp_path / "plain", candidates=rules)
    flips, plain = (Finder(load_detector(tmp_path / name)) for name in ("flips", "plain"))
    scan = flips.read(case_of(write_chest(tmp_path / "chest.nii.gz", BALLS)))
    odd = tuple(slice(0, length - (1 - length % 2)) for length in scan.voxels.shape)
    scan = replace(scan, voxels=scan.voxels[odd])  # even sides are padded, at one end
    mirrored = replace(scan, voxels=scan.voxels[::-1, ::-1, ::-1])
    last = np.array(scan.voxels.shape) - 1

    def found(finder, scan):
        candidates = finder.find(scan).candidates
        places = np.array([[*candidate.center_mm, 1.0] for candidate in candidates])
        order = np.argsort([candidate.probabilities[0] for candidate in candidates])[::-1]
        return (places @ np.linalg.inv(scan.affine).T)[order, :3]

    np.testing.assert_allclose(found(flips, mirrored)[:9], last - found(flips, scan)[:9], atol=2e-3)
    assert np.abs(found(plain, mirrored)[:9] - (last - found(plain, scan)[:9])).max() > 1.0
    both = plain.heat_logits(scan.voxels), plain.heat_logits(mirrored.voxels)[:, ::-1, ::-1, ::-1]
    np.testing.assert_allclose(flips.heat_logits(scan.voxels), (both[0] + both[1]) / 2, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(40, 41, 43), (46, 48, 31)])
def test_cells_of_the_mirror_image_lie_on_cells_of_the_scan(shape, tmp_path):
    class Sampled(BrightBalls):
        def forward(self, images):
            cells = images[..., ::2, ::2, ::2]  # a cell is centred on every second voxel
            return DetectorOutput(cells.repeat(1, 3, 1, 1, 1), torch.zeros_like(cells).repeat(1, 3, 1, 1, 1), cells)

    save_small_detector(tmp_path / "flips", network=DetectorNetwork(width=4, levels=2, average_flips=True))
    finder = Finder(replace(load_detector(tmp_path / "flips"), network=Sampled()))
    voxels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_allclose(finder.heat_logits(voxels)[0], voxels[::2, ::2, ::2] / 255, rtol=0, atol=1e-6)


def test_no_candidate_lies_outside_the_image(finder, tmp_path):
    class Outward(BrightBalls):
        def forward(self, images):
            output = super().forward(images)
            return output._replace(offset=output.offset + 500.0)

    astray = Finder(replace(finder.detector, network=Outward()))
    assert astray.search(case_of(write_chest(tmp_path / "chest.nii.gz", BALLS))).candidates == ()


def _int16(voxels, affine):
    return np.rint(voxels).astype(np.int16), affine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_chest(path, [], spacing=(1.5, 1.5, 30.0)), "E_SHAPE: 120 x 100 x 5 voxels"),
        (lambda path: _write(path, np.full((64, 64, 64), -800.0)), "E_OUT_OF_ENVELOPE: covers 64 x 64 x 64 mm"),
        (lambda path: _write(path, np.full((150, 150, 150), 40.0)), "E_OUT_OF_ENVELOPE: shows 0 ml of lung"),
        (lambda path: _write(path, np.full((150, 150, 150), 800.0), least=0), "E_RANGE"),
    ],
    ids=["five slices", "crop", "no lung", "MR"],
)
def test_what_cannot_be_searched_is_refused(finder, tmp_path, make, message):
    path = tmp_path / "scan.nii.gz"
    make(path)
    with pytest.raises(CaseError, match=message):
        finder.search(case_of(path))


def _write(path, voxels, *, least=-1024):
    noisy = voxels + np.random.default_rng(0).normal(0, 100, voxels.shape)
    nib.save(nib.Nifti1Image(np.clip(noisy, least, None).astype(np.int16), np.eye(4)), path)


def test_a_fault_of_the_table_is_raised_before_anything_is_read(finder, tmp_path):
    fault = CaseError("E_NOT_FOUND", "row 2", "no image")
    with pytest.raises(CaseError, match="row 2: E_NOT_FOUND: no image"):
        finder.search(case_of(tmp_path / "nowhere.nii.gz", fault=fault))
