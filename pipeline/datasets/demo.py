"""Demonstration data: NIfTI CT crops with real nodule shapes and ratings, and simulated intensities.

Real: the shapes, the ratings, which nodules belong to one patient, and pixel spacing, slice spacing, slice thickness
and contrast of each nodule's own scan. Simulated: every intensity (``rendering``). The label is radiologists' opinion,
not pathology.

Images and labels come from different readers. The image is rendered from the reading of one reader, drawn by seed (the
painter), and from the consensus shape. The label and every findings column come from the *other* readers. Noise, blur
and surroundings are drawn independently of both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.cases.lesions.files.lidc_readings import READERS
from pipeline.datasets.chest_anatomy import make_grid
from pipeline.datasets.lidc import LidcNodule, NoduleMask, load_nodules
from pipeline.datasets.render_processes import given_task, render_in_processes
from pipeline.datasets.rendering import CALCIFICATION_ABSENT, Painted, ShortVolume, draw_scanner, render
from pipeline.datasets.scan_tables import majority
from pipeline.errors import UsageError
from pipeline.files import atomic_folder, write_csv
from pipeline.machine import usable_cores

IMAGE_SIZE_MM = (62.0, 62.0, 43.0)  # left-right, front-back, up-down
# The centre may be this far from the image's middle, which leaves at least 20 mm on every side.
JITTER_MM = (9.0, 9.0, 1.5)
_DESCRIPTION = "simulated intensities, LIDC-IDRI nodule shape"

CASES_A_WORKER = 50  # a further interpreter takes about a second to start

# A finding is present when most of the readers' ratings satisfy this; codes of calcification have no order.
FINDINGS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "spiculated": ("spiculation", lambda rating: rating >= 3),
    "lobulated": ("lobulation", lambda rating: rating >= 3),
    "calcified": ("calcification", lambda code: code != CALCIFICATION_ABSENT),
    "part_solid_or_ground_glass": ("texture", lambda rating: rating <= 3),
    "sharp_margin": ("margin", lambda rating: rating >= 4),
}
PAINTED_COLUMNS = ("texture", "calcification", "margin")

_NOTICE = """\
Demonstration data: SIMULATED INTENSITIES around real lung nodule shapes. Not for clinical use.

Real: nodule shapes, readers' ratings, patients, pixel spacing, slice spacing, slice thickness, contrast.
Simulated: every intensity in the images.
Label: the opinion of radiologists (mean malignancy rating of the readers who were not painted), not pathology.

Shapes and ratings derive from LIDC-IDRI, CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/):
Armato III SG, et al. (2015). Data From LIDC-IDRI. The Cancer Imaging Archive.
https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
"""


@dataclass(frozen=True, eq=False)
class DemoCase:
    """One nodule and the number of the reading it is painted from."""

    nodule: LidcNodule
    painter: int

    @property
    def image(self) -> str:
        """Path of the image, relative to the manifest."""
        return f"images/{self.nodule.nodule_id}.nii.gz"

    @property
    def painted(self) -> Painted:
        """The painter's ratings that the image is rendered from."""
        ratings = self.nodule.ratings
        return Painted(*(ratings[name][self.painter] for name in PAINTED_COLUMNS))

    @property
    def mask(self) -> NoduleMask:
        """The nodule's shape.

        Raises:
            UsageError: when too few or too many readers outlined it.
        """
        if self.nodule.mask is None:
            raise UsageError(f"{self.nodule.nodule_id} has no mask, so it cannot be rendered")
        return self.nodule.mask

    def others(self, attribute: str) -> tuple[int, ...]:
        """An attribute's ratings by the readers who were not painted."""
        values = self.nodule.ratings[attribute]
        return values[: self.painter] + values[self.painter + 1 :]


def write_demo_data(out: Path, *, cases: int | None = None, seed: int = 0) -> Path:
    """Write NIfTI images, ``manifest.csv`` and, for scoring, its unlabelled rows as ``unlabelled.csv``.

    The same seed gives the same bytes, whatever the number of cores; a case looks the same in a subset as in the whole.

    Args:
        out: a folder that does not exist yet, or is empty.
        cases: how many cases; patients are taken whole, except perhaps one. None takes all of them (about 1,380).
        seed: decides on painters, patients of a subset, and everything simulated.

    Returns:
        The path of the manifest.

    Raises:
        UsageError: when ``out`` is not empty, or ``cases`` is not between 1 and what there is.
        UnfinishedError: when a worker could not write its images.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; name a new folder or remove it")
    chosen = choose_cases(load_nodules(), cases=cases, seed=seed)
    with atomic_folder(out, private=False) as folder:
        (folder / "images").mkdir()
        _write_images(folder, chosen, seed, cases)
        rows = [manifest_row(case) for case in chosen]
        write_rows(folder / "manifest.csv", rows)
        write_rows(folder / "unlabelled.csv", [row for row in rows if not row["label"]], header=list(rows[0]))
        (folder / "NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    return out / "manifest.csv"


def write_rows(path: Path, rows: Sequence[dict[str, str]], header: Sequence[str] = ()) -> None:
    """Write a table that others may read; the columns are those of the header, by default those of the first row."""
    names = header or list(rows[0])
    write_csv(path, names, ([row[name] for name in names] for row in rows), private=False)


def choose_cases(nodules: Sequence[LidcNodule], *, cases: int | None, seed: int) -> list[DemoCase]:
    """Pick a painter for every nodule with a mask, and a seeded subset of whole patients.

    Raises:
        UsageError: when ``cases`` is not between 1 and what there is.
    """
    usable = [nodule for nodule in nodules if nodule.mask is not None and nodule.readings <= READERS]
    wanted = len(usable) if cases is None else cases
    if not 1 <= wanted <= len(usable):
        raise UsageError(f"cases: {wanted} is not between 1 and {len(usable)}, the cases there are")
    patients = sorted({nodule.patient_id for nodule in usable})
    order = {patients[n]: place for place, n in enumerate(np.random.default_rng(seed).permutation(len(patients)))}
    taken = sorted(usable, key=lambda nodule: order[nodule.patient_id])[:wanted]  # stable: patients stay together
    chosen = {nodule.nodule_id for nodule in taken}
    return [
        DemoCase(nodule, int(generator(seed, "painter", nodule.nodule_id).integers(nodule.readings)))
        for nodule in usable
        if nodule.nodule_id in chosen
    ]


def generator(seed: int, purpose: str, name: str) -> np.random.Generator:
    """Randomness that depends on the seed and a name only, not on the order of work."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _write_images(folder: Path, chosen: Sequence[DemoCase], seed: int, cases: int | None) -> None:
    workers = min(usable_cores(), math.ceil(len(chosen) / CASES_A_WORKER))
    if workers == 1:
        _write_share(folder, chosen, seed)
        return
    render_in_processes(render_demo_share, {"folder": str(folder), "cases": cases, "seed": seed}, workers)


def render_demo_share() -> None:
    """Render one worker's share of the cases (`render_in_processes`)."""
    task = given_task()
    chosen = choose_cases(load_nodules(), cases=task["cases"], seed=task["seed"])
    _write_share(Path(task["folder"]), chosen[task["share"] :: task["shares"]], task["seed"])


def _write_share(folder: Path, chosen: Sequence[DemoCase], seed: int) -> None:
    # One thread of BLAS each: the arrays are small, and every core has a worker of its own.
    with threadpool_limits(limits=1):
        for case in chosen:
            data = render_case(case, seed).to_bytes()
            (folder / case.image).write_bytes(igzip.compress(data, compresslevel=2, mtime=0))


def centre_lps_mm(nodule: LidcNodule) -> npt.NDArray[np.float64]:
    """The lesion's centre, with the middle of the 512 x 512 image at the origin of the plane."""
    x = (nodule.centroid_x_px - 255.5) * nodule.pixel_spacing_mm
    y = (nodule.centroid_y_px - 255.5) * nodule.pixel_spacing_mm
    return np.round(np.array([x, y, nodule.centroid_z_mm]), 4)


def render_case(case: DemoCase, seed: int) -> nib.Nifti1Image:
    """Render one case as NIfTI in a stored orientation drawn by seed.

    Only the painter's texture, calcification and margin, the shape and the scan's geometry reach the image.
    """
    nodule, mask = case.nodule, case.mask
    placing = generator(seed, "placing", nodule.nodule_id)
    half, jitter = np.array(IMAGE_SIZE_MM) / 2, placing.uniform(-1, 1, 3) * JITTER_MM
    grid = make_grid(
        nodule.pixel_spacing_mm, nodule.slice_spacing_mm, nodule.slice_thickness_mm, jitter - half, jitter + half
    )
    scanner = draw_scanner(generator(seed, "scanner", nodule.patient_id), contrast=nodule.contrast)
    hu = render(mask, case.painted, scanner, grid, generator(seed, "case", nodule.nodule_id))

    lps_to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = lps_to_ras @ np.diag([nodule.pixel_spacing_mm, nodule.pixel_spacing_mm, nodule.slice_spacing_mm])
    affine[:3, 3] = lps_to_ras @ (centre_lps_mm(nodule) + np.array([grid.x[0], grid.y[0], grid.slices[0]], float))
    return store(hu, affine, np.stack([placing.permutation(3), placing.choice([-1, 1], 3)], axis=1))


def store(
    hu: ShortVolume, affine: npt.NDArray[np.float64], axes: npt.NDArray[np.int_], description: str = _DESCRIPTION
) -> nib.Nifti1Image:
    """Make a NIfTI image whose array is permuted and flipped, with an affine that keeps every voxel in its place.

    Args:
        hu: HU.
        affine: RAS mm of a voxel of ``hu``.
        axes: for each axis of ``hu`` its place in the stored array, and 1 or -1 for its direction; shape (3, 2).
        description: for the header, ASCII, at most 79 characters.
    """
    image: Any = nib.Nifti1Image(hu, affine).as_reoriented(axes)  # type: ignore[no-untyped-call]
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description.encode("ascii")
    stored: nib.Nifti1Image = image
    return stored


def manifest_row(case: DemoCase) -> dict[str, str]:
    """One row of the manifest; labels and findings are those of the readers who were not painted."""
    nodule = case.nodule
    malignancy = case.others("malignancy")
    mean = float(np.mean(malignancy))
    label = "" if mean == 3 else str(int(mean > 3))
    x, y, z = centre_lps_mm(nodule)
    row = {
        "case_id": nodule.nodule_id,
        "patient_id": nodule.patient_id,
        "image": case.image,
        "label": label,
        "center_x_mm": f"{-x:.4f}",
        "center_y_mm": f"{-y:.4f}",
        "center_z_mm": f"{z:.4f}",
        "coordinate_system": "RAS",
        "diameter_mm": f"{nodule.diameter_mm:.2f}",
        "volume_mm3": f"{nodule.volume_mm3:.1f}",
        "malignant": label,
    }
    for name, (attribute, present) in FINDINGS.items():
        row[name] = majority([present(rating) for rating in case.others(attribute)])
    for attribute, values in nodule.ratings.items():
        if attribute != "malignancy":
            row[f"painted_{attribute}"] = str(values[case.painter])
    # Codes of calcification have no order, so a regression needs it as present or absent.
    row["painted_calcified"] = str(int(nodule.ratings["calcification"][case.painter] != CALCIFICATION_ABSENT))
    return row | {
        "mean_malignancy": f"{mean:.4g}",
        "ratings": "|".join(str(rating) for rating in malignancy),
        "n_readers": str(len(malignancy)),
        "slice_thickness_mm": f"{nodule.slice_thickness_mm:g}",
        "slice_spacing_mm": f"{nodule.slice_spacing_mm:g}",
        "pixel_spacing_mm": f"{nodule.pixel_spacing_mm:g}",
        "contrast": str(int(nodule.contrast)),
    }
