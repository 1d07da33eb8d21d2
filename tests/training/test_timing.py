"""Where the time of a training goes."""

import time

import pytest
import torch
from test_fit import Recorder, blobs, config

from pipeline.imaging.batch_augmentation import BatchAugmentation
from pipeline.training import data
from pipeline.training.fit import fit


def test_shares_add_up_and_are_tracked(tmp_path, capsys):
    recorder = Recorder()
    fit(
        blobs(32),
        blobs(8),
        config(max_epochs=2, patience=1),
        folder=tmp_path,
        tracker=recorder,
        profile=True,
    )
    shares = {name: value for name, value in recorder.steps[2].items() if name.startswith("profile_")}
    assert set(shares) == {
        f"profile_{part}"
        for part in ("loading", "augmentation", "forward", "backward", "optimizer", "validation", "logging", "rest")
    }
    assert sum(shares.values()) == pytest.approx(1, abs=0.05)
    assert all(shares[f"profile_{part}"] > 0 for part in ("loading", "forward", "backward", "validation"))
    assert "where the time of the training went" in capsys.readouterr().err


def test_pace_memory_and_time_left_are_tracked(tmp_path):
    recorder = Recorder()
    fit(blobs(32), blobs(8), config(max_epochs=2, patience=1), folder=tmp_path, tracker=recorder)
    assert recorder.steps[1]["cases_per_second"] > 0
    assert recorder.steps[1]["system/process_memory_megabytes"] > 50
    assert recorder.steps[1]["minutes_left"] > recorder.steps[2]["minutes_left"] == 0


def test_slow_data_path_is_named_once(tmp_path, capsys, monkeypatch):
    class Slow(BatchAugmentation):
        def __call__(self, images: torch.Tensor, **place):
            time.sleep(0.2)
            return images

    monkeypatch.setattr(data, "BatchAugmentation", Slow)
    fit(blobs(32), blobs(8), config(max_epochs=2, patience=1), folder=tmp_path, tracker=Recorder())
    said = capsys.readouterr().err
    assert said.count("the data path takes") == 1
    assert "training.loader_workers" in said
