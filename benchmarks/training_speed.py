"""Training speed against the chain that a MONAI user writes: both sides and the ratio, in one run on one machine.

    python benchmarks/training_speed.py --manifest M --network N --size S --stock PATH [--limit 160] [--epochs 3]

Both sides train on the same cases for as many epochs with the same batches, augmentation and learning rate, and are
asked for their AUROC on the same validation cases, which neither has seen. ``--network compact`` compares our default
network with the script's resnet18. Rates are over the epochs after the first. The script runs unchanged, in this
process; its network is caught where it is built. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import io
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    LoadImage,
    Orientation,
    ResizeWithPadOrCrop,
    ScaleIntensityRange,
)

from pipeline.cases.case import Case
from pipeline.cases.manifest import read_manifest
from pipeline.cases.prepare import prepare_cases
from pipeline.config import Config
from pipeline.evaluation.intervals import auroc_interval
from pipeline.imaging.preprocess import ModelInput
from pipeline.models.networks import predict_logits
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import fit


def main() -> None:
    args = arguments()
    manifest = read_manifest(args.manifest)
    labelled = [case for case in manifest.cases if case.label is not None]
    order = np.random.default_rng(0).permutation(len(labelled))
    if len(order) < args.validation + args.batch:
        raise SystemExit(f"{args.manifest}: {len(order)} labelled cases are too few for --validation {args.validation}")
    validation = [labelled[index] for index in order[: args.validation]]
    train = [labelled[index] for index in order[args.validation :][: args.limit]]
    sides = {"stock": run_stock(args, train, validation), "this project": run_ours(args, train, validation)}
    alone = network_alone(args)
    print(
        f"{len(train)} training and {len(validation)} validation cases, {args.size}^3 voxels, batches of {args.batch}"
    )
    for name, (rate, labels, logits, patients) in sides.items():
        interval = auroc_interval(labels, logits, patients)
        print(f"{name:<13} {rate:8.2f} cases per second, validation AUROC {interval}")
    print(f"network alone {alone:8.2f} cases per second (fp32, steps on one resident batch)")
    ratio = sides["this project"][0] / sides["stock"][0]
    print(f"ratio {ratio:.2f}; of the network alone {sides['this project'][0] / alone:.2f}")
    rates = {name: round(side[0], 3) for name, side in sides.items()}
    print(
        json.dumps(
            {"ratio": round(ratio, 3), "network": args.network, "rates": rates, "network_alone": round(alone, 3)}
        )
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--network", default="compact", help="compact, resnet18 or densenet121")
    parser.add_argument("--size", type=int, default=48, help="voxels of a side; at their stored spacing on both sides")
    parser.add_argument("--stock", type=Path, required=True, help="the ordinary script, stock_training.py")
    parser.add_argument("--limit", type=int, default=None, help="training cases")
    parser.add_argument("--validation", type=int, default=200, help="validation cases")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


def run_stock(args: argparse.Namespace, train: list[Case], validation: list[Case]) -> Any:
    """Its rate, and labels, logits and patients of the validation cases under its own deterministic transforms."""
    spec = importlib.util.spec_from_file_location("stock_training", args.stock)
    stock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock)
    name = "resnet18" if args.network == "compact" else args.network
    caught = catch_network(stock, {"resnet18": "resnet18", "densenet121": "DenseNet121"}[name])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "manifest.csv"
        with open(table, "w", newline="") as handle:
            csv.writer(handle).writerows([("image", "label"), *((case.path.absolute(), case.label) for case in train)])
        options = ["--epochs", args.epochs, "--batch", args.batch, "--size", args.size, "--network", name]
        before, sys.argv = sys.argv, [str(args.stock), str(table), *map(str, options)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                stock.main()
        finally:
            sys.argv = before
    read = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes="RAS"),
            ScaleIntensityRange(a_min=-1000, a_max=400, b_min=0, b_max=1, clip=True),
            ResizeWithPadOrCrop(spatial_size=(args.size,) * 3),
        ]
    )
    images = torch.stack([read(case.path).as_tensor() for case in validation])
    logits = predict_logits(caught[0], images, batch_size=args.batch).numpy()
    return json.loads(said.getvalue().splitlines()[-1])["samples_per_second"], *_truth(validation, logits)


def catch_network(stock: ModuleType, name: str) -> list[torch.nn.Module]:
    """The networks that the script builds from now on."""
    caught: list[torch.nn.Module] = []
    build = getattr(stock, name)

    def building(*args: Any, **kwargs: Any) -> torch.nn.Module:
        caught.append(build(*args, **kwargs))
        return caught[-1]

    setattr(stock, name, building)
    return caught


class Rates:
    """A tracker that keeps each epoch's cases per second."""

    def __init__(self) -> None:
        self.found: dict[int, float] = {}

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Take one epoch's."""
        self.found[step] = values.get("cases_per_second", math.nan)


def run_ours(args: argparse.Namespace, train: list[Case], validation: list[Case]) -> Any:
    """The same of this project, under its own reading."""
    config = configuration(args, train[0])
    tensors = {name: tensors_of(cases, config) for name, cases in (("train", train), ("validation", validation))}
    rates = Rates()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(tensors["train"], None, config, folder=Path(folder), tracker=rates, progress=False)
    places = torch.split(torch.arange(len(validation)), args.batch)
    images = tensors["validation"].images
    logits = np.concatenate([predict_logits(fitted.network, images[each], batch_size=args.batch) for each in places])
    # Epochs have as many cases each, so their rates' harmonic mean is cases over seconds.
    later = [rate for epoch, rate in rates.found.items() if epoch > 1]
    return len(later) / sum(1 / rate for rate in later), *_truth(validation, logits)


def configuration(args: argparse.Namespace, first: Case) -> Config:
    """The script's settings in this project's words; images are read at the spacing of the first."""
    spacing = [float(value) for value in nib.load(first.path).header.get_zooms()[:3]]
    return Config.model_validate(
        {
            "name": "speed",
            "data": {"manifest": str(args.manifest), "modality": "CT", "label_source": "as the manifest says"},
            "preprocessing": {"region": "image", "size": [args.size] * 3, "spacing_mm": spacing},
            "augmentation": {
                "flip_axes": [0, 1, 2],
                "rotate_degrees": math.degrees(0.5),
                "scale": 0.1,
                "translate_voxels": 3.0,
                "intensity_scale": 0.1,
                "noise_std": 0.02,
            },
            "network": {"name": args.network},
            "training": {
                "max_epochs": args.epochs,
                "batch_size": args.batch,
                "learning_rate": 1e-4,
                "weight_decay": 0.0,
                "schedule": "constant",
                "gradient_clip": 0.0,
                "precision": args.precision,
                "early_stopping": None,
            },
        }
    )


def tensors_of(cases: list[Case], config: Config) -> CaseTensors:
    outcomes = prepare_cases(cases, config.preprocessing, modality="CT", root=None)
    usable = [(case, outcome) for case, outcome in outcomes if isinstance(outcome, ModelInput)]
    if len(usable) < len(cases):
        raise SystemExit(f"{len(cases) - len(usable)} cases were rejected; see: malignancy check")
    return CaseTensors.from_arrays(
        ImageRows([found.voxels for _, found in usable]),
        [case.label for case, _ in usable],
        [case.case_id for case, _ in usable],
    )


def network_alone(args: argparse.Namespace) -> float:
    """Cases a second of nothing but steps of the bare fp32 network, on one batch that is there already."""
    from pipeline.config_training import Network
    from pipeline.models.networks import build_network

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(Network(name=args.network), dimensions=3).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.rand(args.batch, 1, *[args.size] * 3, device=device)
    targets = torch.arange(args.batch, device=device) % 2.0
    begun, steps = 0.0, 4
    for step in range(steps + 1):
        if step == 1:
            begun = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images)[:, 0], targets)
        loss.backward()
        optimizer.step()
        loss.item()
    return steps * args.batch / (time.perf_counter() - begun)


def _truth(cases: list[Case], logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    patients = np.array([str(case.patient_id) for case in cases])
    return np.array([case.label for case in cases]), logits.reshape(len(cases), -1)[:, 0], patients


if __name__ == "__main__":
    main()
