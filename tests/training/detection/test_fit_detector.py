"""Fitting a detector: it learns, mines what it gets wrong, and goes on after a kill as if nothing had happened."""

import numpy as np
import pytest
import torch

from pipeline.config.detection import DetectionConfig
from pipeline.errors import UnfinishedError
from pipeline.models.peaks import find_peaks
from pipeline.models.search_volume import search_volume
from pipeline.training.checkpoints import LAST
from pipeline.training.detection import fit
from pipeline.training.detection.fit import MONITORED, fit_detector
from pipeline.training.detection.module import DetectorTraining
from pipeline.training.detection.patches import HardNegative
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.training.tracker import NullTracker


def config(**training):
    values = {
        "max_epochs": 2,
        "steps_per_epoch": 3,
        "batch_size": 2,
        "mined_scans": 2,
        "noise_std": 0.0,
        "intensity_shift": 0.0,
    }
    values |= {"precision": "32-true", "accelerator": "cpu"} | training
    return DetectionConfig.model_validate(
        {
            "name": "balls",
            "task": "detection",
            "data": {"scans": "scans.csv", "lesions": "lesions.csv", "label_source": "drawn for a test"},
            "classes": ["nodule", "solid"],
            "grid": {"spacing_mm": 2.0, "patch": 32},
            "network": {"width": 4, "levels": 2},
            "candidates": {"lowest_probability": 0.05, "most": 10},
            "training": values,
        }
    )


def balls(seed, *, side=64):
    """A dark volume with two bright balls that are lesions, and a bright rod that is none."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(20, 40, (side, side, side)).astype(np.float64)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    voxels[:, side // 2 - 2 : side // 2 + 2, side // 2 - 2 : side // 2 + 2] = 200
    lesions = []
    for corner in ((12, 14, 16), (46, 48, 44)):
        voxel, diameter = np.array(corner) + rng.uniform(-4, 4, 3), float(rng.uniform(10, 18))
        voxels[np.linalg.norm(grid - voxel, axis=-1) * 2.0 < diameter / 2] = 200
        lesions.append(MarkedLesion(voxel, diameter, ignore=False, attributes=(1.0,)))
    return TrainingScan(f"scan {seed}", voxels.astype(np.uint8), tuple(lesions))


def nothing_measured(network):
    return {MONITORED: 0.5}


def test_it_learns_where_lesions_are_and_how_large(tmp_path):
    scans = [balls(seed) for seed in range(4)]
    settings = config(max_epochs=4, steps_per_epoch=30, batch_size=8, learning_rate=0.02)
    steps = iter(range(100))
    fitted = fit_detector(
        scans, settings, judge=lambda _: {MONITORED: next(steps) / 100}, folder=tmp_path, tracker=NullTracker()
    )
    assert fitted.best_epoch == fitted.epochs == 4
    new = balls(9)
    peaks = find_peaks(search_volume(fitted.network, new.voxels), settings.candidates, spacing_mm=2.0)
    for lesion in new.lesions:
        distances = np.linalg.norm(peaks.voxels[:2] - lesion.voxel, axis=1) * 2.0
        assert distances.min() < 2.0  # of the two strongest
        assert abs(np.log(peaks.diameters_mm[distances.argmin()] / lesion.diameter_mm)) < 0.3


def test_the_best_epoch_is_kept(tmp_path):
    values = iter([0.2, 0.9, 0.4])
    fitted = fit_detector(
        [balls(0)],
        config(max_epochs=3),
        judge=lambda _: {MONITORED: next(values)},
        folder=tmp_path,
        tracker=NullTracker(),
    )
    assert fitted.best_epoch == 2
    assert fitted.validation == {MONITORED: pytest.approx(0.9)}


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    place = np.array([40.0, 20.0, 30.0])  # so early a training finds no false positive by itself
    monkeypatch.setattr(fit, "mine", lambda network, scans, chosen, config: [HardNegative(chosen[0], place, 0.9)])
    scans = [balls(seed) for seed in range(3)]
    settings = config(max_epochs=3, batch_size=4)
    whole = fit_detector(scans, settings, judge=nothing_measured, folder=tmp_path / "whole", tracker=NullTracker())
    calls = []

    def killed(network):
        calls.append(network)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {MONITORED: 0.5 + len(calls) / 100}

    def later(network):
        return {MONITORED: 0.9}

    with pytest.raises(KeyboardInterrupt):
        fit_detector(scans, settings, judge=killed, folder=tmp_path / "killed", tracker=NullTracker())
    assert (tmp_path / "killed" / LAST).exists()
    fit_detector(scans, settings, judge=later, folder=tmp_path / "killed", tracker=NullTracker())
    last = [torch.load(tmp_path / name / LAST, weights_only=True)["state_dict"] for name in ("whole", "killed")]
    assert whole.epochs == 3
    for name, value in last[0].items():
        assert torch.equal(value, last[1][name]), name


def test_a_loss_that_is_not_finite_stops_and_names_the_scan(tmp_path):
    scan = balls(0)
    broken = MarkedLesion(scan.lesions[0].voxel, float("inf"), ignore=False, attributes=(1.0,))
    with pytest.raises(UnfinishedError, match=r"the loss of epoch 1 is .*; look at its scans \(scan 0\)"):
        fit_detector(
            [TrainingScan("scan 0", scan.voxels, (broken,))],
            config(positive_share=1.0, hard_share=0.0),
            judge=nothing_measured,
            folder=tmp_path,
            tracker=NullTracker(),
        )


def test_statistics_stand_still_in_the_last_part_of_the_training(tmp_path, monkeypatch):
    seen = []
    step = DetectorTraining.training_step

    def watched(module, *arguments):
        layers = [layer for layer in module.network.modules() if isinstance(layer, torch.nn.BatchNorm3d)]
        before = [layer.running_mean.clone() for layer in layers]
        loss = step(module, *arguments)
        moved = [not torch.equal(old, layer.running_mean) for old, layer in zip(before, layers, strict=True)]
        seen.append(sum(moved) / len(moved))
        return loss

    monkeypatch.setattr(DetectorTraining, "training_step", watched)
    settings = config(max_epochs=2, steps_per_epoch=5, mined_scans=0)
    fit_detector([balls(0)], settings, judge=nothing_measured, folder=tmp_path, tracker=NullTracker())
    assert seen == [1.0] * 6 + [0.0] * 4
