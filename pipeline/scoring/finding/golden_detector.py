"""Golden scans of a detector: phantoms kept with it, with the probabilities that it gave them when it was made.

Like those of a classifier (`pipeline.scoring.golden`), but compared cell by cell of the heat maps that candidates come
from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits, Preprocessing
from pipeline.errors import CaseError, ModelError
from pipeline.files import atomic_folder, read_json, write_json
from pipeline.imaging.read import open_scan
from pipeline.imaging.whole_scans.resampled import resample_whole
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.finding.finder import Finder
from pipeline.scoring.golden import GOLDEN_FOLDER
from pipeline.scoring.phantom import phantom

_RADII_MM = (3.0, 8.0)
_SIDE = 48  # voxels of a phantom on the detector's grid, about
_EVERY = 8  # cells along each axis of which one is compared
_MOST_VALUES = 1_000_000


def add_golden_scans(folder: Path) -> None:
    """Draw the phantoms, search them on the CPU, and keep both in the detector's directory.

    Args:
        folder: the directory, without golden scans yet.
    """
    finder = Finder(load_detector(folder))
    description = finder.detector.description
    spacing = description.grid.spacing_mm
    shape = Preprocessing(dimensions=3, region="image", size=(_SIDE,) * 3, spacing_mm=(spacing,) * 3)
    with atomic_folder(folder / GOLDEN_FOLDER, private=False) as temporary:
        names = [f"{number}.nii.gz" for number in range(len(_RADII_MM))]
        for number, (name, radius) in enumerate(zip(names, _RADII_MM, strict=True)):
            rng = np.random.default_rng(number)
            nib.save(phantom(shape, description.modality, radius_mm=radius, rng=rng), temporary / name)
        values = [_probabilities(finder, temporary / name).tolist() for name in names]
        write_json(temporary / "golden.json", {"scans": names, "probabilities": values}, private=False)


def golden_detector_drift(finder: Finder, folder: Path) -> float:
    """The largest change of a golden scan's probability since the detector was made; 0 where it has no golden scan.

    Raises:
        ModelError: when golden scans are damaged.
    """
    golden = folder / GOLDEN_FOLDER
    if not golden.is_dir():
        return 0.0
    path = golden / "golden.json"
    try:
        expected = _expected(read_json(path))
        measured = {name: _probabilities(finder, golden / name).ravel() for name in expected}
        if any(measured[name].size != expected[name].size for name in expected):
            raise ValueError("has another number of probabilities than the detector gives")
    except CaseError as error:
        raise ModelError(f"{error}; the golden scans are damaged; copy the model directory again") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = error if isinstance(error, ValueError) else type(error).__name__
        raise ModelError(f"{path}: {detail}; the file is damaged; copy the model directory again") from None
    return float(np.max([np.abs(measured[name] - expected[name]).max() for name in expected]))


def _expected(content: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    pairs = zip(content["scans"], content["probabilities"], strict=True)
    expected = {Path(name).name: np.array(values, np.float64).ravel() for name, values in pairs}
    if not 0 < sum(values.size for values in expected.values()) <= _MOST_VALUES:
        raise ValueError("holds no probabilities, or too many")
    return expected


def _probabilities(finder: Finder, path: Path) -> NDArray[np.float64]:
    """Calibrated probabilities (C, cells) of some cells of a phantom's heat maps."""
    description = finder.detector.description
    grid = description.grid
    # Phantoms are small, whatever the detector allows patients.
    scan = open_scan(path, limits=Limits(), modality=description.modality)
    window = (grid.lower, grid.upper)
    voxels, _ = resample_whole(scan, path, spacing=grid.spacing_mm, window=window, modality=description.modality)
    heat = finder.heat_logits(voxels)[:, ::_EVERY, ::_EVERY, ::_EVERY].reshape(len(finder.detector.classes), -1)
    calibrated = [calibrator.apply(row) for calibrator, row in zip(finder.detector.calibrators, heat, strict=True)]
    return np.stack(calibrated)
