"""The detector's directory: what is saved is what is loaded, and damage is noticed."""

import json

import numpy as np
import pytest
import torch
from small_detectors import save_small_detector
from tiny_models import save_tiny

from pipeline.errors import ModelError
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.models.peaks import find_peaks
from pipeline.scoring.description_file import is_detector
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.model_directory import load_model


def edit(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_save_then_load_gives_the_same_peaks(tmp_path):
    save_small_detector(tmp_path / "model")
    image = torch.from_numpy(np.random.default_rng(1).random((1, 1, 32, 48, 32), np.float32))
    with torch.inference_mode():
        peaks = [
            find_peaks(type(output)(*(part[0] for part in output)), detector.description.candidates, spacing_mm=2.0)
            for detector in (load_detector(tmp_path / "model") for _ in range(2))
            for output in [detector.network(image)]
        ]
    assert len(peaks[0].logits) == 5
    assert peaks[0].logits.tobytes() == peaks[1].logits.tobytes()
    assert peaks[0].voxels.tobytes() == peaks[1].voxels.tobytes()


def test_digest_covers_what_changes_a_candidate_and_nothing_else(tmp_path):
    first = save_small_detector(tmp_path / "1", provenance={"host": "a"}).digests.model
    assert save_small_detector(tmp_path / "2", provenance={"host": "b"}).digests.model == first
    assert save_small_detector(tmp_path / "3", seed=1).digests.model != first
    fitted = ScanProbability(classifier_digest="0" * 64, leak=0.1, weight=0.9)
    assert save_small_detector(tmp_path / "4", scan_probability=fitted).digests.model != first
    assert load_detector(tmp_path / "4").scan_probability == fitted


def test_an_edited_description_is_refused(tmp_path):
    description = save_small_detector(tmp_path / "model")
    edit(tmp_path / "model", grid=description.grid.model_dump(mode="json") | {"lower": -900.0})
    with pytest.raises(ModelError, match="was edited after training"):
        load_detector(tmp_path / "model")


def test_damaged_weights_are_refused(tmp_path):
    save_small_detector(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_detector(tmp_path / "model")


def test_a_calibrator_for_each_class(tmp_path):
    description = save_small_detector(tmp_path / "model")
    edit(tmp_path / "model", calibrators=list(description.calibrators[:2]))
    with pytest.raises(ModelError, match="3 classes from 'nodule' have 2 calibrators"):
        load_detector(tmp_path / "model")


def test_classifiers_and_detectors_are_told_apart(tmp_path):
    save_small_detector(tmp_path / "detector")
    save_tiny(tmp_path / "classifier")
    assert is_detector(tmp_path / "detector")
    assert not is_detector(tmp_path / "classifier")
    assert not is_detector(tmp_path)
    with pytest.raises(ModelError, match="is a detector of lesions in whole scans, expected a classifier"):
        load_model(tmp_path / "detector")
    with pytest.raises(ModelError, match="is a classifier, expected a detector"):
        load_detector(tmp_path / "classifier")
