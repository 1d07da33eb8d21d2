"""Pictures of the most confident mistakes: the network's input, and its Grad-CAM map."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import nn

from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.report.page import ReportPicture
from pipeline.models.saliency import middle_planes, saliency_planes

NetworksOf = Callable[[str], Sequence[nn.Module]]  # case_id -> the model's members
InputOf = Callable[[str], NDArray[np.float32] | None]  # case_id -> (1, R, A[, S]), None where it cannot be read again

_EACH_WAY = 4  # pictures of either kind of mistake, so that the page stays small
_SIDE, _GAP = 132, 4  # pixels of a plane, and between planes
_PLANES = ((0, 1), (0, 2), (1, 2))  # axes (0 = R, 1 = A, 2 = S) across and up, as `middle_planes` gives them
_MARK, _BAR_MM = (120, 220, 255), 10.0
# Heat over orange to yellow: lightness rises all the way, so it reads without colour vision.
_HEAT = np.array([[160, 30, 0], [240, 110, 0], [255, 235, 90]], dtype=np.float64)


@dataclass(frozen=True)
class Mistake:
    """A case on the wrong side of 0.5.

    Attributes:
        case_id: of the case.
        label: 0 or 1.
        probability: calibrated, of the other class by more than a half.
    """

    case_id: str
    label: int
    probability: float


def confident_mistakes(predictions: Predictions, *, each_way: int = _EACH_WAY) -> tuple[Mistake, ...]:
    """Benign cases with the highest, then malignant cases with the lowest probability; both beyond 0.5."""
    labelled = predictions.labelled()
    labels, probabilities = labelled.labels, labelled.probabilities
    gaps = np.abs(labels - probabilities)
    mistakes: list[Mistake] = []
    for label in (0, 1):
        wrong = np.flatnonzero((labels == label) & (gaps > 0.5))
        worst = wrong[np.argsort(-gaps[wrong], kind="stable")][:each_way]
        mistakes += [Mistake(str(labelled.case_ids[row]), label, float(probabilities[row])) for row in worst]
    return tuple(mistakes)


def mistake_pictures(
    predictions: Predictions, networks_of: NetworksOf, input_of: InputOf, *, spacing_mm: Sequence[float] | None
) -> tuple[ReportPicture, ...]:
    """The most confident mistakes, each above its Grad-CAM map towards the wrong answer.

    Args:
        predictions: judged cases, with labels and probabilities.
        networks_of: gives the networks that scored a case.
        input_of: gives a case's network input.
        spacing_mm: of the input's voxels along R, A (and S), for a bar of 10 mm; None draws none.
    """
    pictures = []
    for mistake in confident_mistakes(predictions):
        voxels = input_of(mistake.case_id)
        if voxels is None:
            continue
        heat = saliency_planes(networks_of(mistake.case_id), voxels, towards=1 - mistake.label)
        truth, answer = ("malignant", "benign") if mistake.label else ("benign", "malignant")
        pictures.append(
            ReportPicture(
                title=f"{mistake.case_id}: labelled {truth}, probability {mistake.probability:.3f}",
                caption=f"Heat: towards {answer}" if max(plane.max() for plane in heat) > 0 else "No heat to show",
                png=planes_png(middle_planes(voxels[0]), heat, spacing_mm),
            )
        )
    return tuple(pictures)


def planes_png(
    planes: Sequence[NDArray[np.float32]], heat: Sequence[NDArray[np.float32]], spacing_mm: Sequence[float] | None
) -> bytes:
    """The planes side by side, with their directions and a scale, and below them the same planes under their heat."""
    count = len(planes)
    width, height = count * _SIDE + (count - 1) * _GAP, 2 * _SIDE + _GAP
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    low, high = min(float(plane.min()) for plane in planes), max(float(plane.max()) for plane in planes)
    for number, (plane, hot) in enumerate(zip(planes, heat, strict=True)):
        grey = _shown((plane - low) / max(high - low, 1e-6))
        left = number * (_SIDE + _GAP)
        sheet[:_SIDE, left : left + _SIDE] = (255 * grey).astype(np.uint8)[..., None]
        sheet[_SIDE + _GAP :, left : left + _SIDE] = _blend(grey, _shown(hot))
    picture = Pillow.fromarray(sheet)
    pen = ImageDraw.Draw(picture)
    for number, (plane, (across, up)) in enumerate(zip(planes, _PLANES, strict=False)):
        left = number * (_SIDE + _GAP)
        pen.text((left + 3, _SIDE // 2 - 6), "RAS"[across], fill=_MARK)
        pen.text((left + _SIDE // 2 - 3, 2), "RAH"[up], fill=_MARK)
        bar = 0 if spacing_mm is None else round(_BAR_MM / spacing_mm[across] * _SIDE / plane.shape[0])
        if 0 < bar < _SIDE - 8:
            pen.line([(left + 4, _SIDE - 5), (left + 4 + bar, _SIDE - 5)], fill=_MARK, width=2)
            pen.text((left + 4, _SIDE - 19), f"{_BAR_MM:g} mm", fill=_MARK)
    buffer = io.BytesIO()
    picture.quantize(256, kmeans=2).save(buffer, format="PNG", optimize=True)  # a third of the bytes
    return buffer.getvalue()


def _shown(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """A plane as radiologists look at it, in [0, 1]: patient's right on the left, front or head above."""
    turned = np.ascontiguousarray(plane.T[::-1, ::-1], dtype=np.float32)
    enlarged = Pillow.fromarray(turned, mode="F").resize((_SIDE, _SIDE), Pillow.Resampling.BILINEAR)
    return np.clip(np.asarray(enlarged, dtype=np.float64), 0.0, 1.0)


def _blend(grey: NDArray[np.float64], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    colour = np.stack([np.interp(heat, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    cover = 0.7 * np.clip((heat - 0.2) / 0.6, 0.0, 1.0)[..., None]  # faint heat is not drawn
    return ((1 - cover) * 255 * grey[..., None] + cover * colour).astype(np.uint8)
