"""Preprocess a scan on disk into the network's input, with one function for training, evaluation and scoring."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose, NormalizeIntensityd, ScaleIntensityd, ScaleIntensityRanged

from pipeline.config.inputs import Intensity, Preprocessing
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import within_root
from pipeline.imaging.envelope import Acceptance
from pipeline.imaging.image import Float32Array, Scan, ScanFacts, Warning, carrying
from pipeline.imaging.region import ReadRegiond


@dataclass(frozen=True)
class ScanRequest:
    """Which scan, and where in it.

    Attributes:
        path: of the scan (a file, or a folder with one DICOM series).
        center_mm: the lesion's centre, RAS world mm; None for whole images.
        root: the folder that the path, with its links resolved, must lie in; None allows any place.
        files: the slices of one DICOM series in the folder ``path``; None reads the path itself.
        part: which series of a folder, or which page or frame of a file; None for the only one.
        scan: the scan, when it has been opened before; it is not opened again.
    """

    path: Path
    center_mm: tuple[float, float, float] | None
    root: Path | None = None
    files: tuple[Path, ...] | None = None
    part: str | None = None
    scan: Scan | None = None


@dataclass(frozen=True, eq=False)
class ModelInput:
    """The network's input, with measures and facts of the scan.

    Attributes:
        voxels: (1, *size) float32, C-contiguous, in R, A, S order, scaled.
        warnings: of reading, of the region and of the envelope.
        measures: what the envelope judges: ``intensity_q01`` … ``intensity_q99`` of the region before scaling (inside
            the image), for CT ``air_fraction`` and ``tissue_fraction``; ``share_inside`` of the nodes in the image;
            stored ``spacing_in_plane_mm`` and ``spacing_slice_mm`` (``slice_axis`` for slices; scans without
            millimetres, as pictures, have none of them).
        scan: digest, shape, spacing, orientation and modality of the scan.
    """

    voxels: Float32Array
    warnings: tuple[Warning, ...]
    measures: dict[str, float]
    scan: ScanFacts


def preprocess(
    request: ScanRequest, config: Preprocessing, *, modality: str, envelope: Acceptance | None = None
) -> ModelInput:
    """Read, check, cut out, resample and scale.

    Args:
        request: which scan and where in it.
        config: region, size, spacing, scaling and limits.
        modality: the declared one; its range rules run before the envelope.
        envelope: the model's; None while it is being learned.

    Raises:
        CaseError: with the code of what is wrong.
    """
    path = request.path if request.root is None else within_root(request.path, request.root)
    source = {
        "image": path,
        "image_files": request.files,
        "image_part": request.part,
        "image_scan": request.scan,
        "center_mm": request.center_mm,
    }
    try:
        data = _chain(config, modality)(source)
    except RuntimeError as error:
        raise _ours(error) from None
    facts = data["image_facts"]
    with carrying(facts.warnings):
        near = envelope.judge(facts.measures, path=request.path, body_part=facts.scan.body_part) if envelope else ()
    if envelope and envelope.modality != modality:
        raise CaseError(
            Code.E_OUT_OF_ENVELOPE,
            request.path,
            f"modality {modality}, but the model was trained on {envelope.modality}",
        )
    voxels = np.ascontiguousarray(data["image"].numpy(), dtype=np.float32)
    if not np.isfinite(voxels).all() or voxels.min() == voxels.max():
        raise CaseError(
            Code.E_CONSTANT, request.path, "nothing is left after scaling but one value; check preprocessing.intensity"
        )
    return ModelInput(
        voxels=voxels,
        warnings=(*facts.warnings, *near),
        measures=facts.measures,
        scan=facts.scan,
    )


@lru_cache(maxsize=16)
def _chain(config: Preprocessing, modality: str) -> Any:
    """The MONAI transforms of a configuration, built once."""
    read = ReadRegiond(
        "image",
        size=config.size,
        spacing_mm=config.spacing_mm,
        region=config.region,
        modality=modality,
        limits=config.limits,
    )
    return Compose([read, _scaling(config.intensity)])


def _scaling(intensity: Intensity) -> Any:
    if intensity.scaling == "window":
        return ScaleIntensityRanged(
            "image", a_min=intensity.lower, a_max=intensity.upper, b_min=0.0, b_max=1.0, clip=True
        )
    if intensity.scaling == "zscore":
        return NormalizeIntensityd("image")
    return ScaleIntensityd("image", minv=0.0, maxv=1.0)


def _ours(error: BaseException) -> BaseException:
    """MONAI wraps what a transform raises; the innermost error is the one to report."""
    while error.__cause__ is not None and not isinstance(error, CaseError):
        error = error.__cause__
    return error
