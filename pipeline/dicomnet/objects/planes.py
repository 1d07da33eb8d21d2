"""The picture of a lesion: three planes through its centre, with its probability and a disclaimer drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.cases.case import Point
from pipeline.dicomnet.objects.case_result import CaseResult
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.dicomnet.wording import DISCLAIMER
from pipeline.imaging.dicom.scan import DicomScan
from pipeline.imaging.image import Float32Array
from pipeline.imaging.roi import lesion_grid

PictureArray = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NODES: Final = 129  # an odd number has its middle node on the lesion's centre
_ENLARGED: Final = 2
_PANEL: Final = _NODES * _ENLARGED
_GAP, _LINE, _FONT = 8, 22, 15
_SHADE: Final = (2, 98)  # percentiles shown black and white where the model has no window
_WHITE, _GREY, _BLACK = 255, 170, 0
# Left and top of each plane as displayed: the patient's right is on the left.
_LETTERS: Final = (("R", "A"), ("R", "S"), ("A", "S"))


def lesion_picture(
    scan: DicomScan, result: CaseResult, model: ReportedModel, *, width_mm: float, place: str
) -> PictureArray:
    """Draw the picture; it holds no patient's data.

    Args:
        scan: that was scored.
        result: scored, with a centre.
        model: that scored it, in whose window it is shown.
        width_mm: of each plane.
        place: which lesion it is, and how large it is shown.

    Returns:
        Grey values, shape (rows, columns), both even.

    Raises:
        CaseError: when a slice cannot be read.
    """
    assert result.center_mm is not None
    cube = _cube(scan, result.center_mm, width_mm / (_NODES - 1), model.window)
    panels = [_shade(plane, model.window, cube) for plane in _planes(cube)]
    return _drawn(panels, _lines(result, model, place))


def _cube(scan: DicomScan, center_mm: Point, spacing: float, window: tuple[float, float] | None) -> Float32Array:
    """Values about the lesion's centre, shape (R, A, S); outside the image black."""
    grid = lesion_grid(
        scan.path, scan.shape, scan.affine, center_mm=center_mm, size=(_NODES,) * 3, spacing=(spacing,) * 3
    )
    values = grid.resample(scan.read(grid.box))
    return grid.pad(values, float(values.min()) if window is None else window[0])


def _planes(cube: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Axial, coronal and sagittal, shape (rows, columns), turned as in a viewer."""
    middle = _NODES // 2
    seen = cube[::-1, ::-1, ::-1]  # from the patient's right, front and head
    return seen[:, :, middle].T, seen[:, middle, :].T, seen[middle, :, :].T


def _shade(plane: Float32Array, window: tuple[float, float] | None, cube: Float32Array) -> Image.Image:
    black, white = window or tuple(np.percentile(cube, _SHADE))
    shares = np.clip((plane - black) / max(white - black, 1e-6), 0, 1)
    image = Image.fromarray(np.round(shares * _WHITE).astype(np.uint8))
    return image.resize((_PANEL, _PANEL), Image.Resampling.BILINEAR)


def _lines(result: CaseResult, model: ReportedModel, place: str) -> list[str]:
    finding = result.findings[0]
    return [
        f"Probability of malignancy {finding.probability:.3f}: {finding.decision} at threshold {result.threshold:.3f}",
        place,
        *filter(None, [result.found_in_words().capitalize()]),
        *([] if result.detector is None else [f"Detector {result.detector.name}"]),
        f"Model {model.name}, {model.calibration}, {model.intensities} intensities",
        f"Labels: {model.label_source}",
        *([f"Warnings: {', '.join(filter(None, result.warnings.split(';')))}"] if result.warnings else []),
        DISCLAIMER,
    ]


def _drawn(panels: Sequence[Image.Image], lines: Sequence[str]) -> PictureArray:
    width = len(panels) * (_PANEL + _GAP) + _GAP
    height = _PANEL + 2 * _GAP + _LINE * len(lines) + _GAP
    canvas = Image.new("L", (width, height + height % 2), _BLACK)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_FONT)
    for place, (panel, letters) in enumerate(zip(panels, _LETTERS, strict=True)):
        left = _GAP + place * (_PANEL + _GAP)
        canvas.paste(panel, (left, _GAP))
        _mark(draw, left, letters, font)
    for place, line in enumerate(lines):
        text = _fitting(line, font, width - 2 * _GAP)
        draw.text((_GAP, _PANEL + 2 * _GAP + place * _LINE), text, fill=_WHITE, font=font)
    return np.asarray(canvas, dtype=np.uint8)


def _mark(draw: ImageDraw.ImageDraw, left: int, letters: tuple[str, str], font: Font) -> None:
    """Ticks at the edges that point at the centre without hiding it, and the sides' letters."""
    middle, tick = _PANEL // 2, _PANEL // 16
    for start in (0, _PANEL - 1 - tick):
        draw.line([(left + start, _GAP + middle), (left + start + tick, _GAP + middle)], fill=_GREY)
        draw.line([(left + middle, _GAP + start), (left + middle, _GAP + start + tick)], fill=_GREY)
    draw.text((left + 3, _GAP + middle + 2), letters[0], fill=_WHITE, font=font)
    draw.text((left + middle + 4, _GAP + 1), letters[1], fill=_WHITE, font=font)


def _fitting(text: str, font: Font, width: int) -> str:
    """A text cut to what fits on a line."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
