"""Heads as FreeSurfer leaves them, ``sub-01/mri/T1.mgz``, and a BIDS ``participants.tsv``.

Whole-image classification: ``patient`` has a tumour, ``control`` has none, a few are ``n/a``. Each site's scanner has
units and a type of its own. Beside each T1 lies what FreeSurfer computes from it (``brainmask.mgz``, ``aseg.mgz``, text
files). Some subjects came twice (``sub-03_ses-2``).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import Grid, make_grid, mask_center
from made_folders.painters import acquire_mr, paint_head
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why, expect
from made_folders.writing import save_mgz, save_table

SITES = {"A": (np.uint8, 110.0), "B": (np.int16, 620.0), "C": (np.float32, 2900.0)}  # type, units of white matter
NOT_KNOWN_EVERY = 17
GROUP = {
    "LongName": "Study group",
    "Levels": {"patient": "tumour: yes (surgery and pathology)", "control": "tumour: no", "n/a": "not yet known"},
}


def write_mr_mgz(folder: Path, *, cases: int = 48, seed: int = 0, derived: bool = True) -> MadeFolder:
    """Write subjects; ``cases`` counts T1 images.

    Args:
        derived: also write ``brainmask.mgz`` and ``aseg.mgz``, as FreeSurfer does.
    """
    empty_folder(folder, cases=cases)
    plan = plan_scans(cases, seed, pairs=0)
    rng = np.random.default_rng([seed, 2])
    subjects = plan[-1].patient + 1
    # Sites in turn within each group, so that a site says nothing of the tumour.
    groups = {planned.patient: planned.malignant for planned in plan}
    order = sorted(groups, key=lambda patient: groups[patient])
    sites = {patient: "ABC"[place % 3] for place, patient in enumerate(order)}
    unknown = {patient for patient in groups if patient % NOT_KNOWN_EVERY == NOT_KNOWN_EVERY // 2}
    scans: list[MadeScan] = []
    left_out: list[LeftOut] = []
    for planned in plan:
        known = planned.patient not in unknown
        scan, others = _write_subject(folder, planned, seed, site=sites[planned.patient], known=known, derived=derived)
        scans.append(scan)
        left_out += others
    rows: list[list[object]] = [["participant_id", "age", "sex", "group", "site", "handedness"]]
    for patient in range(subjects):
        group = "n/a" if patient in unknown else "patient" if groups[patient] else "control"
        age = "n/a" if rng.random() < 0.06 else int(rng.integers(19, 84))
        hand = str(rng.choice(["R", "R", "R", "L", "n/a"]))
        rows.append([f"sub-{patient + 1:02d}", age, str(rng.choice(["M", "F"])), group, sites[patient], hand])
    table = save_table(folder / "participants.tsv", rows, delimiter="\t")
    (folder / "participants.json").write_text(json.dumps({"group": GROUP, "age": {"Units": "year"}}, indent=4))
    return MadeFolder(folder, table, "patient", "group", expect("MR", scans, region="image", left_out=left_out))


def _write_subject(
    folder: Path, planned: PlannedScan, seed: int, *, site: str, known: bool, derived: bool
) -> tuple[MadeScan, list[LeftOut]]:
    rng = planned.random(seed)
    patient = f"sub-{planned.patient + 1:02d}"
    subject = f"{patient}_ses-{planned.visit + 1}" if planned.visit else patient
    # FreeSurfer's conformed volumes run to the left, down and to the front.
    grid = make_grid((40, 40, 40), (4.4, 4.4, 4.4), center_mm=rng.normal(0, 8, 3), axes="LIA")
    # Of the controls a few have something bright that is no tumour, as a cavernoma; the others have nothing.
    shapes = []
    if planned.malignant or planned.atypical:
        shapes = planned.shapes(grid, rng, benign_radius=8.0, malignant_radius=19.0, room=(0.3, 0.35, 0.3))
    painted = paint_head(grid, shapes, rng)
    kind, gain = SITES[site]
    signal = acquire_mr(painted.values, rng, gain=gain * float(rng.uniform(0.85, 1.15)))
    voxels = (
        signal.astype(np.float32)
        if kind is np.float32
        else np.clip(np.rint(signal), 0, np.iinfo(kind).max).astype(kind)
    )
    path = f"{subject}/mri/T1.mgz"
    save_mgz(folder / path, voxels, grid)
    _write_texts(folder / subject)
    left_out = []
    if derived:
        brain = painted.values > 0.4
        save_mgz(folder / subject / "mri/brainmask.mgz", np.where(brain, voxels, 0).astype(kind), grid)
        save_mgz(folder / subject / "mri/aseg.mgz", _aseg(painted.values, grid), grid)
        left_out = [
            LeftOut(f"{subject}/mri/brainmask.mgz", Why.DERIVED, of=path),
            LeftOut(f"{subject}/mri/aseg.mgz", Why.MASK, of=path),
        ]
    malignant = planned.malignant if known else None
    lesions = tuple(MadeLesion(*mask_center(mask, grid), malignant) for mask in painted.masks)
    return MadeScan(path, patient, malignant, lesions, None if known else Unlabelled.BLANK), left_out


def _aseg(signal: np.ndarray, grid: Grid) -> np.ndarray:
    """FreeSurfer's labels of white matter and cortex, left (2, 3) and right (41, 42)."""
    right = grid.points()[..., 0] > 0
    labels = np.where(signal > 0.85, 2, np.where(signal > 0.5, 3, 0))
    return np.where(right & (labels > 0), labels + 39, labels).astype(np.int32)


def _write_texts(subject: Path) -> None:
    (subject / "stats").mkdir()
    (subject / "scripts").mkdir()
    (subject / "stats" / "aseg.stats").write_text("# Title Segmentation Statistics\n# Measure BrainSeg, BrainSegVol\n")
    (subject / "scripts" / "recon-all.log").write_text(
        "recon-all -s " + subject.name + " -all\nfinished without error\n"
    )
