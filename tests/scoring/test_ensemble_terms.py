"""What rows have in common is known from descriptions alone, and is what the loaded networks say."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import save_tiny, write_scans

from pipeline.errors import ModelError, UsageError
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.model_verification import verify_model
from pipeline.scoring.scorer import Scorer


@pytest.mark.parametrize("methods", [("temperature",), ("temperature", "platt"), ("platt", "isotonic")])
@pytest.mark.parametrize("findings", [("malignant",), ("malignant", "spiculation")])
def test_an_ensemble_of_descriptions_is_that_of_the_loaded_models(tmp_path, methods, findings):
    folders = [tmp_path / f"{number}" for number in range(len(methods))]
    for number, (folder, method) in enumerate(zip(folders, methods, strict=True)):
        save_tiny(folder, seed=number, method=method, findings=findings)
    scorer = Scorer(*map(load_model, folders), backend="bf16")
    models = Ensemble.of([verify_model(folder) for folder in folders])
    assert models.descriptions == scorer.descriptions
    assert models.threshold == scorer.threshold
    assert models.identity("bf16") == scorer.identity
    (row,) = score_cases(scorer, write_scans(tmp_path / "scans", 1))
    assert models.member_columns == len(row.members) == (len(methods) if len(methods) > 1 else 0)
    assert models.finding_columns == (findings if len(findings) > 1 else ())
    assert len(row.findings) == len(models.finding_columns)
    assert (row.model, row.threshold) == (models.identity("bf16").model, models.threshold)


def test_thresholds_are_averaged_on_the_scale_of_the_scores(tmp_path):
    points = []
    for number, method in enumerate(("temperature", "platt", "isotonic")):
        points.append(save_tiny(tmp_path / method, seed=number, method=method).operating_points[0]["threshold"])
    log_odds = np.log(np.array(points) / (1 - np.array(points)))
    both = [verify_model(tmp_path / method) for method in ("temperature", "platt", "isotonic")]
    assert Ensemble.of(both[:2]).threshold == pytest.approx(1 / (1 + np.exp(-log_odds[:2].mean())), abs=1e-12)
    assert Ensemble.of(both[1:]).threshold == pytest.approx(np.mean(points[1:]), abs=1e-12)
    assert Ensemble.of(both[:1]).threshold == points[0]


def test_a_damaged_directory_is_refused_without_torch(tmp_path):
    save_tiny(tmp_path / "model")
    weights, description = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "model.json"
    blob, text = bytearray(weights.read_bytes()), description.read_text()
    verify_model(tmp_path / "model")
    blob[-1] ^= 1
    weights.write_bytes(blob)
    with pytest.raises(ModelError, match=r"model.safetensors: its bytes are not those that were trained"):
        verify_model(tmp_path / "model")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model.safetensors: cannot be read \(No such file"):
        verify_model(tmp_path / "model")
    description.write_text(text.replace('"modality": "CT"', '"modality": "MR"'))
    with pytest.raises(ModelError, match=r"model.json: was edited after training"):
        verify_model(tmp_path / "model")


def test_models_that_read_differently_make_no_ensemble(tmp_path):
    from tiny_models import PREPROCESSING

    save_tiny(tmp_path / "one")
    save_tiny(tmp_path / "two", preprocessing=PREPROCESSING.model_copy(update={"size": (32, 32, 32)}))
    with pytest.raises(UsageError, match="differ in preprocessing"):
        Ensemble.of([verify_model(tmp_path / name) for name in ("one", "two")])
