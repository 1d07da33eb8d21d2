"""How real the demonstration data look: rendered nodule slices beside real ones, measured the same way.

    python benchmarks/demo_realism.py --real ../shared/data/lidc_slices/manifest.csv [--demo FOLDER] [--sheet FILE.png]

Both sides are axial slices of 71 x 71 pixels through the largest section of a LIDC nodule. Of the real ones, those with
a known rescale intercept are used, and those that patient and ratings match to one embedded nodule, for its diameter
and texture. Prints each statistic's 10/50/90 % and flags a rendered median outside the real 10-90 % band; then what
diameter and the painted ratings say about the label (logistic regression, 5 folds by patient), and whether the
surroundings say anything (they must not). The last line is JSON; ``ratio`` is the share of statistics in the band.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.datasets.demo import write_demo_data
from pipeline.datasets.lidc import LidcNodule, load_nodules

Slice = npt.NDArray[np.float64]
SIDE = 71
AROUND = ("tissue_share", "vessel_share", "noise_sd_hu", "parenchyma_hu")


@dataclass(frozen=True, eq=False)
class Crop:
    """One axial slice (71 x 71 HU), its nodule at the middle, as one reader or all of them described it."""

    hu: Slice
    pixel_mm: float
    diameter_mm: float
    texture: float
    calcified: bool
    label: float


def real_crops(manifest: Path) -> Iterator[Crop]:
    nodules: dict[tuple[str, tuple[int, ...]], list[LidcNodule]] = defaultdict(list)
    for nodule in load_nodules():
        nodules[nodule.patient_id, tuple(sorted(nodule.ratings["malignancy"]))].append(nodule)
    table = pd.read_csv(manifest)
    for row in table[table.intercept == "known"].itertuples():
        found = nodules[row.patient_id, tuple(sorted(map(int, row.ratings.split("|"))))]
        if len(found) != 1:
            continue
        hu = np.asarray(nib.load(manifest.parent / row.image).dataobj, float)[:, :, 0]
        ratings = found[0].ratings
        calcified = sum(code != 6 for code in ratings["calcification"]) > found[0].readings / 2
        texture = float(np.mean(ratings["texture"]))
        yield Crop(hu, row.pixel_spacing_mm, found[0].diameter_mm, texture, calcified, row.label)


def rendered_crops(manifest: Path) -> Iterator[Crop]:
    nodules = {nodule.nodule_id: nodule for nodule in load_nodules()}
    for row in pd.read_csv(manifest).itertuples():
        image = nib.as_closest_canonical(nib.load(manifest.parent / row.image))
        mask = nodules[row.case_id].mask
        assert mask is not None
        plane = int(mask.voxels.sum((0, 1)).argmax())
        box = [np.flatnonzero(mask.voxels[:, :, plane].any(axis)) for axis in (1, 0)]
        middle = [(found[0] + found[-1]) / 2 for found in box]
        x, y, z = np.array(mask.offset_mm) + mask.spacing_mm * np.array([*middle, plane])
        world = [row.center_x_mm - x, row.center_y_mm - y, row.center_z_mm + z, 1.0]
        i, j, k = np.rint(np.linalg.solve(image.affine, world)[:3]).astype(int)
        volume = np.asarray(image.dataobj)
        k = min(max(k, 0), volume.shape[2] - 1)
        # Values beyond the crop are repeated; in RAS, x and y run against the real slices' storage.
        padded = np.pad(volume[:, :, k], SIDE, mode="edge")
        hu = padded[i + SIDE - SIDE // 2 :, j + SIDE - SIDE // 2 :][:SIDE, :SIDE][::-1, ::-1].astype(float)
        yield Crop(
            hu, row.pixel_spacing_mm, row.diameter_mm, row.painted_texture, row.painted_calcification != 6, row.label
        )


def _distance(crop: Crop) -> Slice:
    offset = (np.arange(SIDE) - SIDE // 2) * crop.pixel_mm
    return np.hypot(offset[:, None], offset[None, :])


def core_hu(crop: Crop) -> float:
    """Median HU within a fifth of the diameter of the middle."""
    return float(np.median(crop.hu[_distance(crop) <= max(crop.diameter_mm / 5, 0.6 * crop.pixel_mm)]))


def measured(crop: Crop) -> dict[str, float]:
    """What the image itself says about the lesion beside its size: density, calcium, sharpness."""
    inside = crop.hu[_distance(crop) <= max(crop.diameter_mm / 2, crop.pixel_mm)]
    slope = ndimage.gaussian_gradient_magnitude(crop.hu, 0.7)[_distance(crop) <= crop.diameter_mm / 2 + 1]
    return {
        "core_hu": core_hu(crop),
        "brightest_hu": float(np.percentile(inside, 97)),
        "sharpest_hu_per_mm": float(np.percentile(slope, 90)) / crop.pixel_mm,
    }


def surroundings(crop: Crop) -> dict[str, float]:
    """Statistics of what lies around a nodule; NaN where a crop has no clean lung."""
    hu = crop.hu
    tissue = ndimage.binary_opening(hu > -250, iterations=2)
    tissue = np.isin(found := ndimage.label(tissue)[0], 1 + np.flatnonzero(np.bincount(found.ravel())[1:] > 250))
    tissue &= _distance(crop) > crop.diameter_mm / 2 + 2
    near = ndimage.binary_dilation(tissue, iterations=4) | (_distance(crop) < crop.diameter_mm / 2 + 4)
    lung = ~near & (ndimage.uniform_filter(hu, 9) < -600)
    windows = np.lib.stride_tricks.sliding_window_view(hu, (9, 9))[::3, ::3].reshape(-1, 9, 9)
    clean = windows[(windows.max((1, 2)) < -650) & (windows.min((1, 2)) > -1020)]
    figures = dict.fromkeys(
        ("parenchyma_hu", "lung_sd_hu", "noise_sd_hu", "noise_lag1", "vessel_share", "edge_hu_per_mm"), np.nan
    )
    if lung.sum() > 200:
        figures["parenchyma_hu"] = float(np.median(hu[lung]))
        figures["vessel_share"] = float(np.mean(hu[lung] > -650))
    if len(clean) >= 5:
        figures["lung_sd_hu"] = float(np.median(clean.std((1, 2))))
        flat = _flatten(clean[np.argsort(clean.std((1, 2)))[: max(3, len(clean) // 10)]])
        figures["noise_sd_hu"] = float(flat.std())
        figures["noise_lag1"] = float(np.corrcoef(flat[:, 1:].ravel(), flat[:, :-1].ravel())[0, 1])
    slope = ndimage.gaussian_gradient_magnitude(hu, 0.7)[near] / crop.pixel_mm
    if tissue.mean() > 0.1:
        figures["edge_hu_per_mm"] = float(np.percentile(slope, 98))
    return figures | {"tissue_share": float(tissue.mean())}


def _flatten(windows: Slice) -> Slice:
    """Windows less their own plane, shape (n, 9, 9)."""
    ramp = np.arange(-4, 5.0)
    windows = windows - windows.mean((1, 2), keepdims=True)
    for direction in (ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None]):
        windows = windows - ((windows * direction).sum((1, 2)) / (direction**2).sum())[:, None, None] * direction
    return windows


def statistics(crops: list[Crop]) -> dict[str, npt.NDArray[np.float64]]:
    """Every statistic's values over the crops it applies to."""
    found: dict[str, list[float]] = defaultdict(list)
    for crop in crops:
        core, size = core_hu(crop), crop.diameter_mm
        band = "5-8" if 5 <= size < 8 else "8-15" if 8 <= size < 15 else "15+" if size >= 15 else None
        if crop.calcified:
            found["calcified core"].append(core)
        elif crop.texture >= 4.5 and band:
            found[f"solid core {band} mm"].append(core)
        elif 2 < crop.texture <= 3.75 and band == "8-15":
            found["part-solid core 8-15 mm"].append(core)
        elif crop.texture <= 1.75 and band == "8-15":
            found["ground-glass core 8-15 mm"].append(core)
        for name, value in surroundings(crop).items():
            if not np.isnan(value):
                found[name].append(value)
    return {name: np.array(values) for name, values in sorted(found.items())}


def compare(real: list[Crop], rendered: list[Crop]) -> dict[str, object]:
    ours, theirs = statistics(rendered), statistics(real)
    print(f"{len(real)} real crops (known intercept, one matching nodule), {len(rendered)} rendered")
    print(f"{'10 / 50 / 90 %':28}{'real':>28}{'':>6}{'rendered':>28}{'':>6}")
    outside = []
    for name in theirs:
        if name not in ours:
            continue
        a, b = (np.percentile(side[name], (10, 50, 90)) for side in (theirs, ours))
        flag = "" if a[0] <= b[1] <= a[2] else "  <- median outside the real band"
        outside += [name] if flag else []
        cells = ["".join(f"{v:9.2f}" if abs(a[1]) < 5 else f"{v:9.0f}" for v in side) for side in (a, b)]
        print(f"{name:28}{cells[0]:>28} n={len(theirs[name]):<5}{cells[1]:>26} n={len(ours[name])}{flag}")
    covered = [float(np.mean(side["tissue_share"] > 0.25)) for side in (theirs, ours)]
    print(f"soft tissue covers more than a quarter: real {covered[0]:.2f}, rendered {covered[1]:.2f} of the crops")
    medians = {name: round(float(np.median(values)), 3) for name, values in ours.items()}
    return {"ratio": 1 - len(outside) / len(theirs), "outside": outside, "medians": medians}


def labels(manifest: Path, rendered: list[Crop]) -> dict[str, float]:
    """Patient-grouped AUROC of what a model may and may not use."""
    table = pd.read_csv(manifest)
    around = pd.DataFrame([surroundings(crop) for crop in rendered]).fillna(0)
    table = pd.concat([table, around[["tissue_share", "vessel_share", "noise_sd_hu", "parenchyma_hu"]]], axis=1)
    table = pd.concat([table, pd.DataFrame([measured(crop) for crop in rendered])], axis=1)
    table = table[table.label.notna()]
    table["log_diameter"] = np.log(table.diameter_mm)
    table["calcium"] = (table.painted_calcification != 6).astype(int)
    painted = ["painted_texture", "calcium", "painted_margin"]
    sets = {
        "diameter": ["log_diameter"],
        "diameter + painted": ["log_diameter", *painted],
        "diameter + painted, spiculation, lobulation, sphericity": [
            "log_diameter", *painted, "painted_spiculation", "painted_lobulation", "painted_sphericity",
        ],
        "diameter + density and sharpness measured in one slice": [
            "log_diameter", "core_hu", "brightest_hu", "sharpest_hu_per_mm",
        ],
        # The lesion leaves less room for its surroundings, so they are judged by what they add to its size.
        "diameter + surroundings": ["log_diameter", *AROUND],
        "spacing, thickness, contrast alone": ["pixel_spacing_mm", "slice_thickness_mm", "contrast"],
    }  # fmt: skip
    figures = {}
    for name, columns in sets.items():
        model = make_pipeline(StandardScaler(), LogisticRegression())
        odds = cross_val_predict(
            model, table[columns], table.label, groups=table.patient_id, cv=GroupKFold(5), method="predict_proba"
        )
        figures[name] = round(float(roc_auc_score(table.label, odds[:, 1])), 4)
        print(f"AUROC {figures[name]:.3f}  {name}")
    print(f"{len(table)} labelled, {table.label.mean():.3f} malignant")
    return figures


def contact_sheet(path: Path, real: list[Crop], rendered: list[Crop]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(0)
    figure, axes = plt.subplots(6, 12, figsize=(24, 12.6))
    for half, crops, name in ((0, real, "real"), (6, rendered, "rendered")):
        for panel, index in zip(axes[:, half : half + 6].flat, rng.permutation(len(crops)), strict=False):
            crop = crops[index]
            panel.imshow(crop.hu.T, cmap="gray", vmin=-1100, vmax=300, interpolation="nearest")
            panel.set_title(f"{name} {crop.diameter_mm:.0f} mm, texture {crop.texture:.1f}", fontsize=9)
    for panel in axes.flat:
        panel.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=65)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="manifest.csv of real nodule slices")
    parser.add_argument("--demo", type=Path, help="a demo-data folder; rendered into a temporary one when not named")
    parser.add_argument("--cases", type=int, help="how many cases to render")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="also draw real beside rendered slices into this PNG")
    arguments = parser.parse_args()
    real = list(real_crops(arguments.real))
    with tempfile.TemporaryDirectory() as folder:
        manifest, seconds = arguments.demo and arguments.demo / "manifest.csv", 0.0
        if manifest is None:
            start = time.perf_counter()
            manifest = write_demo_data(Path(folder) / "demo", cases=arguments.cases, seed=arguments.seed)
            seconds = time.perf_counter() - start
        rendered = list(rendered_crops(manifest))
        size = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
        figures = compare(real, rendered) | {"auroc": labels(manifest, rendered)}
    if arguments.sheet:
        contact_sheet(arguments.sheet, real, rendered)
    print(json.dumps(figures | {"render_seconds": round(seconds, 1), "megabytes": round(size / 1e6, 1)}))


if __name__ == "__main__":
    main()
