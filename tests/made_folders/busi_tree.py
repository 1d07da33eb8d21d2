"""Breast ultrasound as the dataset BUSI comes: a folder a class, masks beside the pictures, no table and no patients.

``normal/`` has pictures without a lesion and with an all-black mask. A picture with several lesions has further masks
(``_mask_1``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from made_folders.cohort import empty_folder, is_atypical
from made_folders.painters import Mask, paint_ultrasound
from made_folders.shapes import Shape, draw_shape
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Why, expect


def write_busi_tree(folder: Path, *, cases: int = 56, seed: int = 0) -> MadeFolder:
    """Write RGB pictures of varied size; ``cases`` counts those with a lesion, a sixth as many are normal."""
    empty_folder(folder, cases=cases)
    scans: list[MadeScan] = []
    left_out: list[LeftOut] = []
    counts = {"benign": cases - cases // 2, "malignant": cases // 2, "normal": max(2, cases // 6)}
    for kind, count in counts.items():
        (folder / kind).mkdir()
        for number in range(1, count + 1):
            rng = np.random.default_rng([seed, len(kind), number])
            name = f"{kind}/{kind} ({number})"
            shapes = _draw_lesions(rng, kind, pair=number % 9 == 5, atypical=is_atypical(number))
            masks = _write_picture(folder, name, shapes, rng)
            left_out += [LeftOut(mask, Why.MASK, of=f"{name}.png") for mask in masks]
            if kind == "normal":
                left_out.append(LeftOut(f"{name}.png", Why.NO_LESION))
                continue
            lesions = tuple(
                MadeLesion(voxel, None, kind == "malignant", stated_in=mask) for mask, voxel in masks.items()
            )
            scans.append(MadeScan(f"{name}.png", None, kind == "malignant", lesions))
    return MadeFolder(folder, None, "malignant", None, expect("US", scans, region="image", left_out=left_out))


def _draw_lesions(
    rng: np.random.Generator, kind: str, *, pair: bool, atypical: bool
) -> tuple[tuple[int, int], list[Shape]]:
    size = int(rng.integers(64, 88)), int(rng.integers(72, 110))
    if kind == "normal":
        return size, []
    rows, columns = size
    places = [rng.uniform((0.36, 0.3), (0.62, 0.7))]
    if pair:  # side by side
        places = [rng.uniform((0.4, 0.2), (0.6, 0.25)), rng.uniform((0.4, 0.75), (0.6, 0.8))]
    radii = {"benign_radius": 6.0, "malignant_radius": 11.0}
    return size, [
        draw_shape(rng, malignant=kind == "malignant", center=place * (rows, columns), atypical=atypical, **radii)
        for place in places
    ]


def _write_picture(
    folder: Path, name: str, drawn: tuple[tuple[int, int], Sequence[Shape]], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Write a picture and its masks.

    Returns:
        Centroid (column, row) by the mask's path; (0, 0) of an empty mask.
    """
    size, shapes = drawn
    painted = paint_ultrasound(size, shapes, rng)
    gray = np.rint(painted.values).astype(np.uint8)
    gray[:: max(size[0] // 6, 1), -2:] = 255  # the depth scale, burnt in
    Image.fromarray(np.stack([gray] * 3, -1)).save(folder / f"{name}.png")
    masks: Sequence[Mask] = painted.masks or (np.zeros(size, bool),)
    centers = {}
    for number, mask in enumerate(masks):
        path = f"{name}_mask{f'_{number}' if number else ''}.png"
        picture = Image.fromarray(mask.astype(np.uint8) * 255)
        # The dataset's masks are of several modes.
        (picture.convert("1") if rng.random() < 0.5 else picture).save(folder / path)
        row, column = np.argwhere(mask).mean(0) if mask.any() else (0.0, 0.0)
        centers[path] = (round(float(column), 4), round(float(row), 4))
    return centers
