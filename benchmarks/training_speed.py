"""Training speed against the chain that a MONAI user writes: both sides and the ratio, in one run on one machine.

    python benchmarks/training_speed.py --manifest M --network resnet18 compact --size S --stock PATH [--limit 160]

Both sides train on the same cases for as many epochs with the same batches, augmentation and learning rate, and are
asked for their AUROC on the same validation cases, which neither has seen; its difference is paired, by patient.
Several networks share one training of the script, which has no compact network: beside that it trains its resnet18.
``--compact-epochs`` trains the compact network so long with this project's default optimiser settings, since a rate
alone says nothing about what is learnt. Rates are over the epochs after the first, here with all that lies between
two of them (checkpoints too), and over all ``--rounds``; seconds are those of one whole training, reading included. The
script runs unchanged, in this process; its network is caught where it is built.
Prints a table and one JSON line; ``ratio`` is the first network's.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import io
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

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
from pipeline.config.experiment import Config
from pipeline.evaluation.intervals.bootstrap import auroc_interval, paired_auroc_difference
from pipeline.imaging.preprocess import ModelInput
from pipeline.models.networks import predict_logits
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import fit


class Side(NamedTuple):
    """What one side's training took, and what it says of the validation cases."""

    rate: float
    seconds: float
    labels: np.ndarray
    logits: np.ndarray
    patients: np.ndarray


def main() -> None:
    args = arguments()
    manifest = read_manifest(args.manifest)
    labelled = [case for case in manifest.cases if case.label is not None]
    order = np.random.default_rng(0).permutation(len(labelled))
    if len(order) < args.validation + args.batch:
        raise SystemExit(f"{args.manifest}: {len(order)} labelled cases are too few for --validation {args.validation}")
    validation = [labelled[index] for index in order[: args.validation]]
    train = [labelled[index] for index in order[args.validation :][: args.limit]]
    print(
        f"{len(train)} training and {len(validation)} validation cases, {args.size}^3 voxels, batches of {args.batch}"
    )
    rounds: list[dict[str, Side]] = []
    for _ in range(args.rounds):
        sides = {"stock": run_stock(args, train, validation)}
        rounds.append(sides | {name: run_ours(args, name, train, validation) for name in args.network})
    stock, *ours = (over_rounds([sides[name] for sides in rounds]) for name in ("stock", *args.network))
    say(f"{stock_network(args)} there", stock)
    found = {}
    for name, side in zip(args.network, ours, strict=True):
        ratios = [sides[name].rate / sides["stock"].rate for sides in rounds]
        found[name] = compare(name, side, stock, ratios, alone=network_alone(args, name))
    print(json.dumps({"ratio": found[args.network[0]]["ratio"], "stock": stock_network(args), "networks": found}))


def over_rounds(sides: list[Side]) -> Side:
    """Cases over seconds of all rounds, and seconds of one; what is learnt is the same in each."""
    rate, seconds = statistics.harmonic_mean([side.rate for side in sides]), sum(side.seconds for side in sides)
    return sides[0]._replace(rate=rate, seconds=seconds / len(sides))


def compare(name: str, ours: Side, stock: Side, ratios: list[float], *, alone: float) -> dict[str, object]:
    """Print one of our networks beside the script's, and give its figures."""
    ratio = ours.rate / stock.rate
    gain = paired_auroc_difference(
        stock.labels, ours.logits, stock.logits, stock.patients, rng=np.random.default_rng(0)
    )
    say(f"{name} here", ours)
    print(f"  network alone {alone:.2f} cases per second (fp32, steps on one resident batch)")
    rounds = f" ({', '.join(f'{each:.2f}' for each in ratios)})" if len(ratios) > 1 else ""
    print(f"  ratio {ratio:.2f}{rounds}; of the network alone {ours.rate / alone:.2f}; AUROC here less there {gain}")
    return {
        "ratio": round(ratio, 3),
        "ratios": [round(each, 3) for each in ratios],
        "rates": {"stock": round(stock.rate, 3), "here": round(ours.rate, 3), "network_alone": round(alone, 3)},
        "seconds": {"stock": round(stock.seconds, 1), "here": round(ours.seconds, 1)},
        "auroc_gain": gain.to_json(),
    }


def say(name: str, side: Side) -> None:
    interval = auroc_interval(side.labels, side.logits, side.patients)
    print(
        f"{name:<17} {side.rate:8.2f} cases per second, {side.seconds:6.0f} s, validation AUROC {interval}", flush=True
    )


def stock_network(args: argparse.Namespace) -> str:
    """What the script trains."""
    return "densenet121" if "densenet121" in args.network else "resnet18"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--network", nargs="+", default=["compact"], help="compact and resnet18, or densenet121")
    parser.add_argument(
        "--size", type=int, default=48, help="voxels of a side, here at the median of the stored spacing"
    )
    parser.add_argument("--stock", type=Path, required=True, help="the ordinary script, stock_training.py")
    parser.add_argument("--stock-workers", type=int, default=2, help="loader processes of the ordinary script")
    parser.add_argument("--limit", type=int, default=None, help="training cases")
    parser.add_argument("--validation", type=int, default=200, help="validation cases")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--compact-epochs", type=int, default=None, help="with our own optimiser settings")
    parser.add_argument(
        "--rounds", type=int, default=1, help="trainings of each side, in turn: a shared machine's pace drifts"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--stock-bf16", choices=("cpu", "cuda"), help="run the script under bf16 on this device")
    args = parser.parse_args()
    if min(args.epochs, args.compact_epochs or 2) < 2:
        parser.error("--epochs: rates are over the epochs after the first; give at least 2")
    if "densenet121" in args.network and len(args.network) > 1:
        parser.error("--network: the script trains one network; give densenet121 alone")
    return args


def run_stock(args: argparse.Namespace, train: list[Case], validation: list[Case]) -> Side:
    """The script, and its network on the validation cases under its own deterministic transforms."""
    spec = importlib.util.spec_from_file_location("stock_training", args.stock)
    stock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock)
    name = stock_network(args)
    caught = catch_network(stock, {"resnet18": "resnet18", "densenet121": "DenseNet121"}[name])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "manifest.csv"
        with open(table, "w", newline="") as handle:
            csv.writer(handle).writerows([("image", "label"), *((case.path.absolute(), case.label) for case in train)])
        options = ["--epochs", args.epochs, "--batch", args.batch, "--size", args.size, "--network", name]
        options += ["--workers", args.stock_workers]
        before, sys.argv = sys.argv, [str(args.stock), str(table), *map(str, options)]
        said, begun = io.StringIO(), time.perf_counter()
        try:
            # The script itself knows no bf16; nothing else of it is changed.
            bf16 = torch.autocast(args.stock_bf16, torch.bfloat16) if args.stock_bf16 else contextlib.nullcontext()
            with contextlib.redirect_stdout(said), bf16:
                stock.main()
        finally:
            sys.argv = before
    seconds = time.perf_counter() - begun
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
    return Side(
        json.loads(said.getvalue().splitlines()[-1])["samples_per_second"], seconds, *_truth(validation, logits)
    )


def catch_network(stock: ModuleType, name: str) -> list[torch.nn.Module]:
    """The networks that the script builds from now on."""
    caught: list[torch.nn.Module] = []
    build = getattr(stock, name)

    def building(*args: Any, **kwargs: Any) -> torch.nn.Module:
        caught.append(build(*args, **kwargs))
        return caught[-1]

    setattr(stock, name, building)
    return caught


class EpochEnds:
    """A tracker that keeps when each epoch was done."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Look at the clock."""
        self.at[step] = time.perf_counter()


def run_ours(args: argparse.Namespace, name: str, train: list[Case], validation: list[Case]) -> Side:
    """This project, under its own reading; its seconds hold reading the training cases, as the script's do."""
    begun = time.perf_counter()
    config = configuration(args, name, train)
    ends = EpochEnds()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(tensors_of(train, config), None, config, folder=Path(folder), tracker=ends)
    seconds = time.perf_counter() - begun
    places = torch.split(torch.arange(len(validation)), args.batch)
    images = tensors_of(validation, config).images
    logits = np.concatenate([predict_logits(fitted.network, images[each], batch_size=args.batch) for each in places])
    epochs = config.training.max_epochs
    rate = (epochs - 1) * len(train) / (ends.at[epochs] - ends.at[1])
    return Side(rate, seconds, *_truth(validation, logits))


def configuration(args: argparse.Namespace, name: str, train: list[Case]) -> Config:
    """The script's settings in this project's words; images are read at the usual spacing, in R, A, S."""
    own = name == "compact" and args.compact_epochs
    optimiser = {} if own else {"learning_rate": 1e-4, "weight_decay": 0.0, "schedule": "constant"}
    canonical = [nib.as_closest_canonical(nib.load(case.path)) for case in train]
    spacing = np.median([image.header.get_zooms()[:3] for image in canonical], axis=0).tolist()
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
            "network": {"name": name},
            "training": {
                **optimiser,
                "max_epochs": args.compact_epochs if own else args.epochs,
                "batch_size": args.batch,
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


def network_alone(args: argparse.Namespace, name: str) -> float:
    """Cases a second of nothing but steps of the bare fp32 network, on one batch that is there already."""
    from pipeline.config.training import Network
    from pipeline.models.networks import build_network

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(Network(name=name), dimensions=3).to(device).train()
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
