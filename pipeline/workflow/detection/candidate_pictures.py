"""Pictures of a detector's best and worst candidates, and of lesions that it missed, as finished PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from pipeline.cases.case import Case, Point
from pipeline.evaluation.report.page import ReportPicture
from pipeline.workflow.detection.judge_detector import JudgedScans

_EACH = 4  # pictures of a kind, so that the page stays small
_HALF_MM, _SIDE, _GAP = 32.0, 132, 4  # shown around the centre; pixels of a plane, and between planes
_PLANES = ((0, 1), (0, 2), (1, 2))  # axes (0 = R, 1 = A, 2 = S) across and up
_MARK = (255, 200, 60)


@dataclass(frozen=True, eq=False)
class GridScan:
    """A scan on a grid of equal spacing.

    Attributes:
        voxels: (R, A, S), a byte each.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
    """

    voxels: NDArray[np.uint8]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class ShownPlace:
    """A place in a scan to be shown: centre in RAS mm, diameter in mm, and what is written under it."""

    case: Case
    center_mm: Point
    diameter_mm: float
    title: str
    caption: str


def candidate_pictures(judged: JudgedScans, read: Callable[[Case], GridScan]) -> tuple[ReportPicture, ...]:
    """Hits and false positives of the highest probability, and the largest lesions that were missed.

    Args:
        judged: the scans.
        read: gives a scan as the detector saw it.
    """
    pictures = []
    for place in shown_places(judged):
        scan = read(place.case)
        pictures.append(ReportPicture(place.title, place.caption, place_png(scan, place.center_mm, place.diameter_mm)))
    return tuple(pictures)


def shown_places(judged: JudgedScans, *, each: int = _EACH) -> tuple[ShownPlace, ...]:
    """The places to show, so many of each kind."""
    hits: list[tuple[float, ShownPlace]] = []
    mistakes: list[tuple[float, ShownPlace]] = []
    missed: list[tuple[float, ShownPlace]] = []
    for case, matched in zip(judged.searches.cases, judged.matches.scans, strict=True):
        lesion_of = {match.candidate: match for match in matched.lesions}
        for number, point in enumerate(matched.scan.candidates):
            outcome, words = matched.outcomes[number], f"{point.diameter_mm:.1f} mm across"
            title = f"{case.case_id}#{number + 1}: {outcome}, probability {point.probability:.3f}"
            if outcome == "hit":
                words += f", {lesion_of[number].distance_mm:.1f} mm from the lesion's centre"
            place = ShownPlace(case, point.center_mm, point.diameter_mm, title, words)
            if outcome in ("hit", "false positive"):
                (hits if outcome == "hit" else mistakes).append((point.probability, place))
        for match in matched.lesions:
            if match.candidate is None:
                width = 2.0 * match.lesion.radius_mm
                title = f"{case.case_id}: missed lesion {match.lesion.lesion_id}".rstrip()
                words = f"{width:.1f} mm across"
                missed.append((width, ShownPlace(case, match.lesion.center_mm, width, title, words)))
    shown: list[ShownPlace] = []
    for kind in (hits, mistakes, missed):
        strongest = sorted(kind, key=lambda entry: (-entry[0], entry[1].title))[:each]
        shown += [place for _, place in strongest]
    return tuple(shown)


def place_png(scan: GridScan, center_mm: Point, diameter_mm: float) -> bytes:
    """Axial, coronal and sagittal plane through a place, with a circle of the diameter around it.

    The patient's right, or front, is on the left; what lies outside the scan is black.
    """
    index = np.linalg.solve(scan.affine, np.array([*center_mm, 1.0]))[:3]
    spacing = float(np.linalg.norm(scan.affine[:3, 0]))
    half = round(_HALF_MM / spacing)
    middle = np.clip(np.rint(index).astype(int), 0, np.array(scan.voxels.shape) - 1)
    box = np.pad(scan.voxels, half)[tuple(slice(at, at + 2 * half + 1) for at in middle)]
    sheet = np.full((_SIDE, 3 * _SIDE + 2 * _GAP, 3), 255, dtype=np.uint8)
    planes = (box[:, :, half], box[:, half, :], box[half, :, :])
    for number, plane in enumerate(planes):
        turned = np.ascontiguousarray(plane.T[::-1, ::-1])
        enlarged = Pillow.fromarray(turned).resize((_SIDE, _SIDE), Pillow.Resampling.BILINEAR)
        left = number * (_SIDE + _GAP)
        sheet[:, left : left + _SIDE] = np.asarray(enlarged)[..., None]
    picture = Pillow.fromarray(sheet)
    pen = ImageDraw.Draw(picture)
    pixels = _SIDE / ((2 * half + 1) * spacing)  # a millimetre
    reach = diameter_mm / 2.0 * pixels
    for number, (across, up) in enumerate(_PLANES):
        # Both axes are turned, so that a place beyond the middle voxel lies left of and above the middle.
        away = (index - middle) * spacing * pixels
        x, y = number * (_SIDE + _GAP) + _SIDE / 2 - away[across], _SIDE / 2 - away[up]
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], outline=_MARK)
        pen.text((number * (_SIDE + _GAP) + 3, _SIDE // 2 - 6), "RAS"[across], fill=_MARK)
        pen.text((number * (_SIDE + _GAP) + _SIDE // 2 - 3, 2), "RAH"[up], fill=_MARK)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
