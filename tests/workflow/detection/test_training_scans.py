"""Where a training's cache keeps a scan: another grid, scan, code or library is another entry."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from chest_scans import write_chest
from detection_sets import write_detection_set

from pipeline.cases.case import Case
from pipeline.config.detection import DetectionGrid
from pipeline.workflow.detection import training_scans
from pipeline.workflow.detection.detection_experiment import read_detection_experiment
from pipeline.workflow.detection.training_scans import cached_at, read_scans

GRID = DetectionGrid(spacing_mm=3.0, patch=32)


def case_of(path):
    return Case(case_id=path.name, image=path.name, path=path)


def test_another_grid_modality_or_file_is_another_entry(tmp_path):
    path = write_chest(tmp_path / "ct.nii.gz", [])
    first = cached_at(case_of(path), tmp_path, GRID, modality="CT")
    assert first == cached_at(case_of(path), tmp_path, GRID, modality="CT")
    others = {
        cached_at(case_of(path), tmp_path, GRID.model_copy(update={"spacing_mm": 2.0}), modality="CT"),
        cached_at(case_of(path), tmp_path, GRID.model_copy(update={"upper": 200.0}), modality="CT"),
        cached_at(case_of(path), tmp_path, GRID, modality="MR"),
    }
    write_chest(path, [], seed=1)
    others.add(cached_at(case_of(path), tmp_path, GRID, modality="CT"))
    assert len(others - {first}) == 4
    assert cached_at(case_of(tmp_path / "none.nii.gz"), tmp_path, GRID, modality="CT") is None


def test_changed_code_is_another_entry(tmp_path, monkeypatch):
    path = write_chest(tmp_path / "ct.nii.gz", [])
    before = cached_at(case_of(path), tmp_path, GRID, modality="CT")
    entries = {before}
    for number, source in enumerate(training_scans._SOURCES):  # this room's own modules
        changed = tmp_path / f"{number}.py"
        shutil.copy(source, changed)
        changed.write_text(changed.read_text() + "\n# another rounding\n")
        with monkeypatch.context() as patch:
            others = [changed if other == source else other for other in training_scans._SOURCES]
            patch.setattr(training_scans, "_SOURCES", others)
            entries.add(cached_at(case_of(path), tmp_path, GRID, modality="CT"))
    monkeypatch.setattr(training_scans, "reading_code", lambda: "another reader, or version of a library")
    entries.add(cached_at(case_of(path), tmp_path, GRID, modality="CT"))
    assert len(entries) == 4
    assert any(str(source).endswith("searchable_scan.py") for source in training_scans._SOURCES)


def test_what_is_kept_is_what_was_read(tmp_path, monkeypatch):
    config = write_detection_set(tmp_path, splits=("train", "validation", "calibration", "test"))
    monkeypatch.chdir(tmp_path)
    experiment = read_detection_experiment(config, [f"data.cache={tmp_path / 'kept'}"])
    read = read_scans(experiment, experiment.of("train"), what="read")
    monkeypatch.setattr(training_scans, "read_searchable", None)
    kept = read_scans(experiment, experiment.of("train"), what="read")
    assert kept.digests == read.digests
    assert kept.measures == read.measures
    assert read.measures[0]["spacing_slice_mm"] == pytest.approx(2.0)
    np.testing.assert_array_equal(kept.scans[0].voxels, read.scans[0].voxels)
