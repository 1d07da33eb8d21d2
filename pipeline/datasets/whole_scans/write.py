"""The folder of whole demonstration scans: ``scans/``, ``scans.csv``, ``lesions.csv``, ``test_scans.csv`` and a notice.

Real: the nodules' shapes and ratings, which nodules belong to one patient, and pixel spacing, slice spacing, slice
thickness and contrast of the patient's own scan. Simulated: every intensity, the half of the chest with everything else
in it, and where in it a nodule lies. The label is radiologists' opinion, not pathology, and comes from readers other
than the one that is painted (``datasets.demo``).

Patients none of whose nodules was outlined by three readers give the scans without nodules, one scan in five.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.datasets.chest_anatomy import Vector, make_grid
from pipeline.datasets.demo import (
    DemoCase,
    choose_cases,
    generator,
    manifest_row,
    store,
    write_rows,
)
from pipeline.datasets.lidc import LidcScan, load_nodules, load_scans
from pipeline.datasets.render_processes import given_task, render_in_processes
from pipeline.datasets.rendering import PART_SOLID, draw_scanner
from pipeline.datasets.scan_tables import LESIONS, SCANS, majority, scan_label
from pipeline.datasets.whole_scans.render import RenderedScan, render_scan
from pipeline.datasets.whole_scans.thorax import MIDLINE_MM, THORAX_SIZE_MM
from pipeline.errors import UsageError
from pipeline.files import atomic_folder, require_free
from pipeline.machine import usable_cores

EMPTY_EVERY = 5  # the fifth scan, the tenth, ... has no nodule
SCANS_A_WORKER = 4
_DESCRIPTION = "simulated intensities, half of a chest; LIDC-IDRI nodule shapes"

_NOTICE = """\
Demonstration data: SIMULATED INTENSITIES in a simulated half of a chest. Not for clinical use.

Real: nodule shapes, readers' ratings, which nodules belong to one patient; pixel spacing, slice spacing, slice
thickness and contrast of the patient's scan.
Simulated: every intensity in the images; lung, vessels, bronchi, fissures, chest wall, heart, mediastinum, diaphragm;
where a nodule lies; granulomas below 3 mm, which are not nodules and not in lesions.csv.
Label: the opinion of radiologists (mean malignancy rating of the readers who were not painted), not pathology.
A detector trained on these scans proves nothing about real ones.

Shapes and ratings derive from LIDC-IDRI, CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/):
Armato III SG, et al. (2015). Data From LIDC-IDRI. The Cancer Imaging Archive.
https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
"""

# Share of the patients up to the end of each split.
SPLIT_ENDS = {"train": 0.6, "validation": 0.7, "calibration": 0.82, "test": 1.0}


@dataclass(frozen=True, eq=False)
class DemoScan:
    """A scan to be made: the real scan whose geometry it has, and the nodules that it holds, perhaps none."""

    scan: LidcScan
    cases: tuple[DemoCase, ...]

    @property
    def scan_id(self) -> str:
        """Id of the scan; one scan a patient."""
        return f"{self.scan.patient_id}-chest"

    @property
    def image(self) -> str:
        """Path of the image, relative to the tables."""
        return f"scans/{self.scan_id}.nii.gz"


def write_whole_scans(out: Path, *, scans: int, seed: int = 0) -> Path:
    """Write whole scans with ``scans.csv`` (one row a scan) and ``lesions.csv`` (one row a nodule, a manifest).

    ``test_scans.csv`` holds the rows of the test split, to be searched and scored.

    The same seed gives the same bytes, whatever the number of cores; a scan looks the same in a subset as in the whole.

    Args:
        out: a folder that does not exist yet, or is empty.
        scans: how many; every fifth has no nodule.
        seed: decides on patients, painters and everything simulated.

    Returns:
        The path of ``scans.csv``.

    Raises:
        UsageError: when ``scans`` is not between 2 and what there is.
        FileExistsError: when ``out`` is not empty.
        UnfinishedError: when a worker could not write its scans.
    """
    require_free(out)
    chosen = choose_demo_scans(scans, seed=seed)
    with atomic_folder(out, private=False) as folder:
        (folder / "scans").mkdir()
        rendered = _write_images(folder, chosen, seed)
        lesions = [
            row for demo_scan in chosen for row in lesion_rows(demo_scan, rendered[demo_scan.scan_id]["nodules"])
        ]
        scan_rows = [scan_row(demo_scan, rendered[demo_scan.scan_id]["side"]) for demo_scan in chosen]
        write_rows(folder / SCANS, scan_rows)
        tested = [row for row in scan_rows if row["split"] == "test"]
        write_rows(folder / "test_scans.csv", tested, list(scan_rows[0]))
        write_rows(folder / LESIONS, lesions)
        (folder / "NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    return out / SCANS


def choose_demo_scans(scans: int, *, seed: int) -> list[DemoScan]:
    """Pick patients in an order drawn by seed, so that fewer scans are the first of more; sorted by patient.

    Of a patient with two scans, the one with more outlined nodules is taken.

    Raises:
        UsageError: when ``scans`` is not between 2 and what there is.
    """
    order = list(_ordered(seed))
    if not 2 <= scans <= len(order):
        raise UsageError(f"whole scans: {scans} is not between 2 and {len(order)}, the scans there are")
    return sorted(order[:scans], key=lambda demo_scan: demo_scan.scan_id)


def _ordered(seed: int) -> Iterator[DemoScan]:
    """All scans there are, every fifth without a nodule, until either kind is used up."""
    cases: dict[str, list[DemoCase]] = defaultdict(list)
    for case in choose_cases(load_nodules(), cases=None, seed=seed):
        cases[case.nodule.series_instance_uid].append(case)
    patients: dict[str, LidcScan] = {}
    for scan in load_scans():
        other = patients.setdefault(scan.patient_id, scan)
        if len(cases[scan.series_instance_uid]) > len(cases[other.series_instance_uid]):
            patients[scan.patient_id] = scan
    drawn = np.random.default_rng(seed).permutation(len(patients))
    wholes = [DemoScan(scan, tuple(cases[scan.series_instance_uid])) for scan in patients.values()]
    with_nodules = iter([wholes[n] for n in drawn if wholes[n].cases])
    without = iter([wholes[n] for n in drawn if not wholes[n].cases])
    for number in range(1, len(wholes) + 1):
        demo_scan = next(with_nodules if number % EMPTY_EVERY else without, None)
        if demo_scan is None:
            return
        yield demo_scan


def _write_images(folder: Path, chosen: Sequence[DemoScan], seed: int) -> dict[str, Any]:
    """Write the images; by scan id its side and its nodules' places."""
    workers = min(usable_cores(), math.ceil(len(chosen) / SCANS_A_WORKER))
    if workers == 1:
        return _write_share(folder, chosen, seed)
    render_in_processes(render_scan_share, {"folder": str(folder), "scans": len(chosen), "seed": seed}, workers)
    rendered: dict[str, Any] = {}
    for share in range(workers):
        path = folder / f"{share}.json"
        rendered |= json.loads(path.read_bytes())
        path.unlink()
    return rendered


def render_scan_share() -> None:
    """Render one worker's share of the scans (`render_in_processes`)."""
    task = given_task()
    chosen = choose_demo_scans(task["scans"], seed=task["seed"])
    rendered = _write_share(Path(task["folder"]), chosen[task["share"] :: task["shares"]], task["seed"])
    (Path(task["folder"]) / f"{task['share']}.json").write_text(json.dumps(rendered), encoding="utf-8")


def _write_share(folder: Path, chosen: Sequence[DemoScan], seed: int) -> dict[str, Any]:
    rendered = {}
    # One thread of BLAS each: every core has a worker of its own.
    with threadpool_limits(limits=1):
        for demo_scan in chosen:
            image, scan, middle = render_whole_scan(demo_scan, seed)
            _write_image(folder / demo_scan.image, image)
            nodules = [
                {"centre": (nodule.centre_mm + middle).tolist(), "place": str(nodule.place)} for nodule in scan.nodules
            ]
            rendered[demo_scan.scan_id] = {"side": scan.side, "nodules": nodules}
    return rendered


def _write_image(path: Path, image: nib.Nifti1Image) -> None:
    """Write compressed NIfTI piece by piece; the same image gives the same bytes, with no name or time in them."""
    with (
        open(path, "wb") as handle,
        igzip.IGzipFile(filename="", mode="wb", fileobj=handle, compresslevel=2, mtime=0) as compressed,  # type: ignore[no-untyped-call]
    ):
        image.to_stream(compressed)


def render_whole_scan(demo_scan: DemoScan, seed: int) -> tuple[nib.Nifti1Image, RenderedScan, Vector]:
    """Render one scan as NIfTI in a stored orientation drawn by seed.

    Returns:
        The image, what was rendered, and the volume's middle in LPS mm.
    """
    scan = demo_scan.scan
    half = np.array(THORAX_SIZE_MM) / 2
    grid = make_grid(scan.pixel_spacing_mm, scan.slice_spacing_mm, scan.slice_thickness_mm, -half, half)
    scanner = draw_scanner(generator(seed, "scanner", scan.patient_id), contrast=scan.contrast)
    nodules = [(case.mask, case.painted) for case in demo_scan.cases]
    rendered = render_scan(
        nodules, scanner, grid, generator(seed, "whole scan", demo_scan.scan_id), contrast=scan.contrast
    )
    placing = generator(seed, "placing", demo_scan.scan_id)
    # The body's midline lies near the scanner's axis; the table's height is anything.
    middle = np.round(placing.uniform(-1, 1, 3) * (15, 40, 150) + (rendered.side * MIDLINE_MM, -150, -200), 4)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = lps_to_ras @ np.diag([scan.pixel_spacing_mm, scan.pixel_spacing_mm, scan.slice_spacing_mm])
    affine[:3, 3] = lps_to_ras @ (middle + np.array([grid.x[0], grid.y[0], grid.slices[0]], float))
    axes = np.stack([placing.permutation(3), placing.choice([-1, 1], 3)], axis=1)
    return store(rendered.hu, affine, axes, _DESCRIPTION), rendered, middle


def patient_split(patient_id: str) -> str:
    """The split of a patient, in both tables, so that detector and classifier are trained and judged on the same ones.

    Drawn from the id alone: a patient is in the same split whatever the number of scans.
    """
    draw = generator(0, "split", patient_id).random()
    return next(name for name, end in SPLIT_ENDS.items() if draw < end)


def lesion_rows(demo_scan: DemoScan, nodules: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows of ``lesions.csv``: those of a demonstration manifest, at the simulated places."""
    rows = []
    for case, nodule in zip(demo_scan.cases, nodules, strict=True):
        x, y, z = nodule["centre"]
        solid = majority([rating > PART_SOLID for rating in case.others("texture")])
        rows.append(
            manifest_row(case)
            | {
                "image": demo_scan.image,
                "split": patient_split(demo_scan.scan.patient_id),
                "center_x_mm": f"{-x:.4f}",
                "center_y_mm": f"{-y:.4f}",
                "center_z_mm": f"{z:.4f}",
                "solid": solid,
                "ignore": "0",
                "scan_id": demo_scan.scan_id,
                "simulated_place": nodule["place"],
            }
        )
    return rows


def scan_row(demo_scan: DemoScan, side: int) -> dict[str, str]:
    """Row of ``scans.csv``; the label is 1 with a malignant nodule, blank where one's is unknown and none is 1."""
    labels = [manifest_row(case)["label"] for case in demo_scan.cases]
    scan = demo_scan.scan
    return {
        "case_id": demo_scan.scan_id,
        "image": demo_scan.image,
        "patient_id": scan.patient_id,
        "split": patient_split(scan.patient_id),
        "label": scan_label(labels),
        "lesions": str(len(demo_scan.cases)),
        "simulated_side": "left" if side > 0 else "right",
        "slice_thickness_mm": f"{scan.slice_thickness_mm:g}",
        "slice_spacing_mm": f"{scan.slice_spacing_mm:g}",
        "pixel_spacing_mm": f"{scan.pixel_spacing_mm:g}",
        "contrast": str(int(scan.contrast)),
    }
