"""Golden scans: phantoms kept with a model, with the probabilities that they got when it was made.

Every scoring process scores them before its first scan and after its last. When a probability has changed, something
under the model has changed (a library, a processor, a damaged memory), and the run ends instead of writing wrong
numbers. They are phantoms, drawn from a seed, so that a model directory holds no patient's scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits, Preprocessing
from pipeline.errors import CaseError, ModelError
from pipeline.files import atomic_folder, read_json, write_json
from pipeline.imaging.preprocess import ScanRequest, preprocess
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.phantom import phantom
from pipeline.scoring.scorer import Scorer

GOLDEN_FOLDER = "golden"
_RADII_MM = (4.0, 9.0)  # of the ball in each phantom's middle
_MOST_SCANS = 64


def add_golden(model: Path) -> None:
    """Draw the phantoms, score them with the default backend on the CPU, and keep both in the model directory.

    Args:
        model: the directory, without golden scans yet.
    """
    loaded = load_model(model)
    scorer = Scorer(loaded, device="cpu")
    preprocessing, modality = loaded.description.preprocessing, loaded.description.modality
    with atomic_folder(model / GOLDEN_FOLDER, private=False) as folder:
        names = [f"{number}.nii.gz" for number in range(len(_RADII_MM))]
        for number, (name, radius) in enumerate(zip(names, _RADII_MM, strict=True)):
            image = phantom(preprocessing, modality, radius_mm=radius, rng=np.random.default_rng(number))
            nib.save(image, folder / name)
        probabilities = scorer.member_probabilities(_inputs(folder, names, preprocessing, modality))
        content = {"scans": names, "member_probabilities": probabilities.tolist()}
        write_json(folder / "golden.json", content, private=False)


def golden_drift(scorer: Scorer, models: Sequence[Path]) -> float:
    """The largest change of a golden scan's probability since its model was made; 0 where a model has none.

    Args:
        scorer: of the models, in this order.
        models: their directories.

    Raises:
        ModelError: when golden scans are damaged.
    """
    drift, member = 0.0, 0
    for model, description in zip(models, scorer.descriptions, strict=True):
        count = len(description.members)
        if (model / GOLDEN_FOLDER).is_dir():
            names, expected = _read(model / GOLDEN_FOLDER, of_each=count * len(description.findings))
            inputs = _inputs(model / GOLDEN_FOLDER, names, description.preprocessing, description.modality)
            probabilities = scorer.member_probabilities(inputs)[:, member : member + count]
            drift = float(np.maximum(drift, np.abs(probabilities.ravel() - expected.ravel()).max()))
        member += count
    return drift


def _read(folder: Path, *, of_each: int) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the golden scans, and ``of_each`` probabilities for each of them, in one row."""
    path = folder / "golden.json"
    try:
        content: dict[str, Any] = read_json(path)
        names = [Path(name).name for name in content["scans"]]
        expected = np.array(content["member_probabilities"], np.float64).ravel()
        if not 0 < len(names) <= _MOST_SCANS or expected.size != len(names) * of_each:
            raise ValueError(f"{len(names)} scans have {expected.size} probabilities, expected {of_each} each")
        if not ((expected >= 0) & (expected <= 1)).all():
            raise ValueError("holds a probability outside [0, 1]")
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = error if isinstance(error, ValueError) else getattr(error, "strerror", None) or type(error).__name__
        raise ModelError(f"{path}: {detail}; the file is damaged; copy the model directory again") from None
    return names, expected


def _inputs(folder: Path, names: Sequence[str], config: Preprocessing, modality: str) -> NDArray[np.float32]:
    """Network inputs (N, 1, R, A[, S]) of the phantoms, through the one preprocessing function."""
    center = (0.0, 0.0, 0.0) if config.region == "lesion" else None
    config = config.model_copy(update={"limits": Limits()})  # phantoms are small, whatever the model allows patients
    try:
        inputs = [preprocess(ScanRequest(folder / name, center), config, modality=modality) for name in names]
    except CaseError as error:
        raise ModelError(f"{error}; the golden scans are damaged; copy the model directory again") from None
    return np.stack([model_input.voxels for model_input in inputs])
