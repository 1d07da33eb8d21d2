"""Who the patients of a made folder are: how many scans each has, and who has a malignant lesion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from made_folders.geometry import Grid
from made_folders.shapes import Shape, draw_centers, draw_shape

ATYPICAL_EVERY = 12  # of each class
SMALLEST = 12  # below this, a folder could not hold every oddity it stands for


@dataclass(frozen=True)
class PlannedScan:
    """One scan to be made.

    Attributes:
        number: of the scan in its folder, from 0.
        patient: number of the patient, from 0.
        visit: number of the patient's scan, from 0.
        lesions: how many to paint, all of one class.
        atypical: the lesions lie between the classes.
    """

    number: int
    patient: int
    visit: int
    malignant: bool
    lesions: int
    atypical: bool = False

    def random(self, seed: int) -> np.random.Generator:
        """Randomness of this scan alone, the same whatever else the folder holds."""
        return np.random.default_rng([seed, self.number, 1])

    def shapes(
        self,
        grid: Grid,
        rng: np.random.Generator,
        *,
        benign_radius: float = 4.6,
        malignant_radius: float = 8.6,
        room: tuple[float, float, float] = (0.4, 0.4, 0.5),
    ) -> list[Shape]:
        """Draw the scan's lesions, in mm from the middle of a grid and at most ``room`` of its half width away."""
        half_width = grid.half_width_mm * room
        # Far enough that the longest spikes of two do not meet, or a mask of both would show one.
        apart = 3.9 * malignant_radius if self.malignant or self.atypical else 3.9 * benign_radius
        centers = draw_centers(rng, count=self.lesions, half_width=half_width, apart=apart)
        return [
            draw_shape(
                rng,
                malignant=self.malignant,
                center=center,
                benign_radius=benign_radius,
                malignant_radius=malignant_radius,
                atypical=self.atypical,
            )
            for center in centers
        ]


def empty_folder(folder: Path, *, cases: int) -> None:
    """Refuse a folder that holds anything, and too few cases."""
    if cases < SMALLEST:
        raise ValueError(f"cases: {cases} is below {SMALLEST}, the fewest that hold every oddity of the folder")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)


def plan_scans(
    cases: int, seed: int, *, twice: int = 6, pairs: int = 7, atypical: int = ATYPICAL_EVERY
) -> list[PlannedScan]:
    """Plan scans of patients of whom half have a malignant lesion.

    Args:
        twice: every so-manieth patient is scanned twice; 0 for none.
        pairs: every so-manieth scan has two lesions; 0 for none.
        atypical: every so-manieth scan of a class lies between the classes.
    """
    rng = np.random.default_rng([seed, 0])
    visits: list[int] = []
    while sum(visits) < cases:
        second = twice and len(visits) % twice == 2
        visits.append(2 if second and sum(visits) + 2 <= cases else 1)
    malignant = rng.permutation(np.arange(len(visits)) % 2 == 0)
    places = [(patient, visit) for patient, count in enumerate(visits) for visit in range(count)]
    plan: list[PlannedScan] = []
    seen = {True: 0, False: 0}
    for number, (patient, visit) in enumerate(places):
        kind = bool(malignant[patient])
        lesions = 2 if pairs and number % pairs == 3 else 1
        plan.append(PlannedScan(number, patient, visit, kind, lesions, atypical=is_atypical(seen[kind], atypical)))
        seen[kind] += 1
    return plan


def is_atypical(place: int, every: int = ATYPICAL_EVERY) -> bool:
    """Whether the lesion at a place of its class, from 0, lies between the classes."""
    return place % every == every // 2
