"""A configuration that fits the folder: dimensions, region, size, spacing, intensities, augmentation.

As nnU-Net derives a plan from a data fingerprint (Isensee et al., 2021): from sizes, spacings and intensities alone,
never from labels. The numbers of networks and folds are left to the training (``auto``), which counts its cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.cases.case import Point
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.config.inputs import Limits, Modality
from pipeline.errors import CaseError
from pipeline.imaging.read import open_scan

_SAMPLED = 24  # scans whose voxels are looked at
_CUBE = 32  # voxels across a lesion's region
_VOLUME = 48  # and across a whole volume
_PICTURE = 96  # pixels across a picture
_MARGIN = 1.6  # region over the largest usual lesion
_NARROWEST_MM, _WIDEST_MM, _UNKNOWN_MM = 24.0, 96.0, 40.0
_CT_STEP = 50.0  # HU to which a window is rounded
_HINTS: dict[Modality, tuple[str, ...]] = {
    "US": ("us", "ultrasound", "ultraschall", "sono", "echo", "busi", "breast ultrasound"),
    "XR": ("xr", "xray", "x ray", "cxr", "radiograph", "rontgen", "mammo", "mammography", "mg", "dx", "cr"),
    "MR": ("mr", "mri", "mrt", "irm", "t1", "t2", "flair", "dwi"),
    "CT": ("ct", "computed tomography"),
}


@dataclass(frozen=True)
class Preparation:
    """How scans of a folder become inputs.

    Attributes:
        dimensions: of the inputs.
        region: a cube around the lesion, or the whole image.
        modality: declared by the files, or guessed from their values and names.
        why_modality: what it was guessed from.
        size: voxels along R, A (and S).
        spacing_mm: of them; None resizes the whole image.
        lower: of a CT's window, HU; None where intensities are scaled by each image's own range.
        upper: of a CT's window, HU.
    """

    dimensions: Literal[2, 3]
    region: Literal["lesion", "image"]
    modality: Modality
    why_modality: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    lower: float | None = None
    upper: float | None = None


def prepare_for(
    scans: Sequence[SurveyedScan],
    centers: Sequence[Point | None],
    diameters: Sequence[float | None],
    *,
    modality: Modality | None = None,
    folder: str = "",
) -> Preparation:
    """Choose how scans become inputs.

    Args:
        scans: of the cases; all flat, or none.
        centers: of their lesions, RAS mm; with a centre for every scan the region is the lesion's.
        diameters: of their lesions, mm, where known.
        modality: as the user states; else guessed from the files.
        folder: its name, which may hold a hint, as ``BUSI``.
    """
    dimensions: Literal[2, 3] = 2 if scans[0].is_flat else 3
    lesions = dimensions == 3 and all(center is not None for center in centers)
    widths = [diameter for diameter in diameters if diameter is not None]
    size, spacing = _lesion_grid(scans, widths) if lesions else _image_grid(scans, dimensions)
    sample = _sample(scans, centers if lesions else [None] * len(scans), size[0] * spacing[0] if spacing else 0.0)
    settled, why = (modality, "as given") if modality else _modality(scans, sample, folder)
    lower, upper = _window(sample) if settled == "CT" else (None, None)
    return Preparation(dimensions, "lesion" if lesions else "image", settled, why, size, spacing, lower, upper)


def _lesion_grid(
    scans: Sequence[SurveyedScan], diameters: Sequence[float]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A cube a little wider than the largest usual lesion, no finer than the scans are."""
    width = _UNKNOWN_MM
    if diameters:
        width = float(np.clip(_MARGIN * np.percentile(diameters, 95), _NARROWEST_MM, _WIDEST_MM))
    finest = float(np.median([min(scan.spacing_mm) for scan in scans]))
    count = int(np.clip(8 * np.ceil(width / finest / 8), 16, _CUBE))
    return (count,) * 3, (_rounded(width / count),) * 3


def _image_grid(scans: Sequence[SurveyedScan], dimensions: int) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The whole image: at one spacing that nearly all fit into where millimetres are known, else resized."""
    if dimensions == 2:
        return (_PICTURE, _PICTURE), None
    if not all(scan.has_millimetres for scan in scans):
        return (_VOLUME,) * 3, None
    extents = np.percentile([np.multiply(scan.size, scan.spacing_mm) for scan in scans], 95, axis=0)
    finest = float(np.median([min(scan.spacing_mm) for scan in scans]))
    spacing = _rounded(max(float(extents.max()) / _VOLUME, finest))
    size = tuple(int(np.clip(8 * np.ceil(extent / spacing / 8), 16, _VOLUME)) for extent in extents)
    return size, (spacing,) * 3


def _rounded(millimetres: float) -> float:
    return float(f"{millimetres:.2g}") if millimetres < 1 else round(millimetres * 20) / 20


def _sample(scans: Sequence[SurveyedScan], centers: Sequence[Point | None], width_mm: float) -> npt.NDArray[np.float32]:
    """Voxels of some scans, spread over the cohort; around the lesion where its centre is given."""
    places = np.unique(np.linspace(0, len(scans) - 1, min(_SAMPLED, len(scans))).round().astype(int))
    values = []
    for place in places:
        scan = scans[place]
        try:
            opened = open_scan(scan.path, limits=Limits(), files=scan.files)
            voxels = opened.read(_box(scan, centers[place], width_mm)).ravel()
        except CaseError:
            continue  # reported by `check`, and left out by the training
        values.append(voxels[:: max(1, voxels.size // 50_000)])
    return np.concatenate(values) if values else np.zeros(0, np.float32)


def _box(scan: SurveyedScan, center: Point | None, width_mm: float) -> tuple[slice, slice, slice]:
    if center is None:  # the middle half, or half a million voxels of it: borders are air and padding
        a, b, c = (slice(length // 4, max(length - length // 4, length // 4 + 1)) for length in scan.shape)
        return a, b, c
    index = np.linalg.solve(scan.affine, np.array([*center, 1.0]))[:3]
    half = width_mm / 2 / np.linalg.norm(scan.affine[:3, :3], axis=0)
    low = np.clip(np.floor(index - half), 0, np.array(scan.shape) - 1).astype(int)
    high = np.clip(np.ceil(index + half) + 1, low + 1, scan.shape).astype(int)
    a, b, c = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return a, b, c


def _modality(scans: Sequence[SurveyedScan], sample: npt.NDArray[np.float32], folder: str) -> tuple[Modality, str]:
    """The modality that the files declare; else guessed from their values or names."""
    declared = Counter(scan.modality for scan in scans if scan.modality)
    if declared:
        name = declared.most_common(1)[0][0]
        return name if name in ("CT", "MR", "US", "XR", "mask") else "other", "as the files declare"  # type: ignore[return-value]
    if sample.size and np.unique(sample[:4096]).size <= 2:
        return "mask", "two values alone"
    if sample.size and float(np.mean(sample < -500)) > 0.02:
        return "CT", "values around -1000, as of air"
    names = " ".join([folder, *(scan.image for scan in scans[:200])]).casefold()
    words = set("".join(letter if letter.isalnum() else " " for letter in names).split())
    hinted = [modality for modality, hints in _HINTS.items() if words & set(hints)]
    if len(hinted) == 1:
        return hinted[0], "a word in the paths"
    if scans[0].is_flat:
        return "other", "pictures do not say; --modality US or XR if they are"
    if sample.size and float(sample.min()) < -100 and float(sample.max()) < 4000:
        return "CT", "values below 0, as Hounsfield units"
    return "MR", "no negative values, as of MR; --modality if they are not"


def _window(sample: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Nearly all values around the lesions, rounded; no wider than air to bone."""
    if not sample.size:
        return -1000.0, 400.0
    low, high = np.percentile(np.clip(sample, -1000, 1000), [1, 99])
    return float(np.floor(low / _CT_STEP) * _CT_STEP), float(max(np.ceil(high / _CT_STEP) * _CT_STEP, low + 100))


def configuration_text(
    *,
    name: str,
    preparation: Preparation,
    label_source: str,
    intensities: str = "real",
    covariates: Sequence[str] = (),
    subgroups: Sequence[str] = (),
    cases: int,
    what: str,
) -> str:
    """The configuration as YAML with comments.

    Args:
        name: of experiment and registered model.
        preparation: how scans become inputs.
        label_source: whose opinion or which test the labels are.
        intensities: ``real`` or ``simulated``.
        covariates: columns known of every case, used on a log scale, and as the baseline.
        subgroups: columns whose subgroups are evaluated.
        cases: labelled ones.
        what: summary of the folder, for the first line.
    """
    spacing = "null # resized" if preparation.spacing_mm is None else _list(preparation.spacing_mm)
    window = (
        f"{{scaling: window, lower: {preparation.lower}, upper: {preparation.upper}}} # HU, from the scans themselves"
    )
    scaling = "{scaling: zscore, lower: null, upper: null} # by each image's own mean and spread"
    return _TEMPLATE.format(
        what=what,
        name=name,
        modality=preparation.modality,
        why_modality=preparation.why_modality,
        label_source=_quoted(label_source),
        intensities=intensities,
        covariates="{" + ", ".join(f"{_quoted(column)}: log" for column in covariates) + "}",
        dimensions=preparation.dimensions,
        region=preparation.region,
        size=_list(preparation.size),
        spacing=spacing,
        intensity=window if preparation.modality == "CT" else scaling,
        augmentation=_augmentation(preparation),
        batch_size=16 if cases < 400 else 32,
        baseline=_list(covariates),
        subgroups=_list([_quoted(column) for column in subgroups]),
    )


def _augmentation(preparation: Preparation) -> str:
    """Mirrors where anatomy allows them: all axes around a lesion, left and right alone of whole images."""
    if preparation.region == "lesion":
        return (
            "{flip_axes: [0, 1, 2], quarter_turns: true, translate_voxels: 1.0, intensity_shift: 0.02, noise_std: 0.01}"
        )
    return "{flip_axes: [0], rotate_degrees: 10.0, scale: 0.1, translate_voxels: 3.0}"


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(map(str, values)) + "]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_TEMPLATE = """\
# {what}
# Written by `malignancy init`; every value may be changed, here or as section.key=value on the command line.
name: {name}
seed: 0
output: runs

data:
  manifest: manifest.csv # beside this file
  modality: {modality} # {why_modality}
  label_source: {label_source}
  intensities: {intensities}
  covariates: {covariates} # numbers known of every case when it is scored
  splits: {{train: 0.55, validation: 0.15, calibration: 0.15, test: 0.15}} # by patient, where a test split is drawn
  cache: {{folder: cache, max_gb: 20.0}} # inputs are prepared once, for all runs

preprocessing:
  dimensions: {dimensions}
  region: {region}
  size: {size} # voxels along R, A, S
  spacing_mm: {spacing}
  intensity: {intensity}

augmentation: {augmentation}
network: {{name: compact, dropout: 0.2}}

training:
  folds: auto # 5 where a test split would be too small
  members: auto # networks of one model, by the number of patients
  max_epochs: 30
  min_steps: 200 # few cases run more epochs than that
  batch_size: {batch_size}
  learning_rate: 0.002
  weight_decay: 0.05
  early_stopping: null # the last weights: a whole cycle of the learning rate
  ema_decay: 0.98
  precise_batch_norm: true # statistics of the averaged weights themselves: it matters where steps are few
  precision: auto

calibration: {{method: platt}}
operating_point: {{rule: sensitivity, target: 0.95}}
evaluation: {{baseline_columns: {baseline}, subgroups: {subgroups}, pictures: false}}
tracking: {{experiment: {name}, registered_model: {name}}}
"""
