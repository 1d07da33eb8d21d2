"""Training on a GPU beside the chain of a MONAI user, and beside the network alone on tensors that are there."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_rows import Row, Setting, training_arguments, wait_for
from torch.nn.functional import binary_cross_entropy_with_logits
from training_speed import Side, configuration, run_stock, tensors_of

from pipeline.cases.case import Case
from pipeline.cases.manifest import read_manifest
from pipeline.config.experiment import Config
from pipeline.config.training import Network
from pipeline.datasets.demo import write_demo_data
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.intervals.bootstrap import auroc_interval, paired_auroc_difference
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network, predict_logits
from pipeline.training.data import CaseTensors
from pipeline.training.fit import fit
from pipeline.training.gpu import Compile, compiled

_TIMES_STOCK, _OF_NETWORK_ALONE = 5.0, 0.7


@dataclass(frozen=True)
class Alone:
    """Steps of nothing but the network.

    Attributes:
        name: of what was chosen.
        compile: as in the configuration.
        channels_last: as in the configuration.
        step_seconds: of one step.
        first_seconds: of the first ones, compiling included.
    """

    name: str
    compile: Compile
    channels_last: bool
    step_seconds: float
    first_seconds: float

    def whole(self, steps: int) -> float:
        """Seconds of a training of so many steps."""
        return self.first_seconds + steps * self.step_seconds


@dataclass(frozen=True)
class Here:
    """What a training of this project took.

    Attributes:
        side: its rate over the epochs after the first, with the checkpoints between them, and its logits.
        within_epochs: cases a second inside the epochs after the first.
        shares: of its time, with ``--profile``.
    """

    side: Side
    within_epochs: float
    shares: dict[str, float]


class EpochTimes:
    """A tracker that keeps when each epoch was done, its pace, and the profile."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self.pace: dict[int, float] = {}
        self.shares: dict[str, float] = {}

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Look at the clock."""
        if any(name.startswith("profile_") for name in values):
            self.shares = {name.removeprefix("profile_"): value for name, value in values.items()}
            return
        self.at[step] = time.perf_counter()
        self.pace[step] = values["cases_per_second"]


def write_cases(setting: Setting) -> list[Row]:
    """The demonstration cases, for all trainings."""
    begin = time.perf_counter()
    write_demo_data(setting.manifest.parent, cases=60 if setting.tiny else 700)
    return [Row("demonstration cases written", f"{time.perf_counter() - begin:.1f} s")]


def compare(setting: Setting, *, network: str, size: int) -> list[Row]:
    """One network at one size: what alone is fastest, this project with it, and the stock script."""
    epochs, batch = (2, 4) if setting.tiny else (5, 8)
    size = size // 6 if setting.tiny else size
    args = training_arguments(setting, network=network, size=size, epochs=epochs, batch=batch)
    train, validation = split(setting)
    steps = epochs * (len(train) // batch)
    variants = [alone(setting, network, size, batch, *choice) for choice in choices(setting, network, size)]
    best = min(variants, key=lambda variant: variant.whole(steps))
    here = train_here(setting, args, train, validation, best)
    label = f"{network} at {size}^3"
    share = here.within_epochs * best.step_seconds / batch
    figures = {
        "cases_per_second": here.side.rate,
        "within_epochs": here.within_epochs,
        "network_alone": batch / best.step_seconds,
        "chosen": best.name,
    }
    goal = f">= {_OF_NETWORK_ALONE:.0%}"
    rows = [
        Row(
            f"{label}: steps alone",
            "; ".join(f"{one.name} {1e3 * one.step_seconds:.1f} ms + {one.first_seconds:.1f} s" for one in variants),
        ),
        Row(
            f"{label}: cases per second",
            f"{here.side.rate:.1f}, within epochs {here.within_epochs:.1f} ({best.name} chosen for {steps} steps)",
            figures=figures,
        ),
        Row(f"{label}: of the network alone", f"{share:.0%}", goal, _judged(setting, share >= _OF_NETWORK_ALONE)),
        *_profile(label, here),
    ]
    return [*rows, *against_stock(setting, args, train, validation, here, label)]


def split(setting: Setting) -> tuple[list[Case], list[Case]]:
    """Training and validation cases, by patient."""
    cases = [case for case in read_manifest(setting.manifest).cases if case.label is not None]
    patients = sorted({str(case.patient_id) for case in cases})
    order = np.random.default_rng(0).permutation(len(patients))
    apart = {patients[place] for place in order[: len(patients) // 3]}
    most = 12 if setting.tiny else 400
    train = [case for case in cases if str(case.patient_id) not in apart][:most]
    return train, [case for case in cases if str(case.patient_id) in apart]


def choices(setting: Setting, network: str, size: int) -> list[tuple[Compile, bool]]:
    """What is measured: with inductor only where it compiles within the part's time."""
    some: list[tuple[Compile, bool]] = [("off", True), ("off", False)]
    if setting.tiny:
        return [*some, ("cuda_graphs", True)] if network == "resnet18" and size < 10 else some[:1]
    some.append(("cuda_graphs", True))
    return [*some, ("inductor", True)] if network == "resnet18" and size <= 48 else some


def alone(setting: Setting, name: str, size: int, batch: int, how: Compile, channels_last: bool) -> Alone:
    """Steps of the network in bf16 on one batch that is on the device."""
    torch.manual_seed(0)
    device = setting.device
    torch.backends.cudnn.benchmark = True
    network = to_fast_layout(build_network(Network(name=name), dimensions=3), channels_last=channels_last)
    network = network.to(device).train()
    forward = compiled(network, how, batch_size=batch)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    images = torch.rand(batch, 1, size, size, size, device=device)
    targets = torch.arange(batch, device=device) % 2.0

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = binary_cross_entropy_with_logits(forward(images)[:, 0].float(), targets)
        loss.backward()
        optimizer.step()

    begin = time.perf_counter()
    for _ in range(1 if setting.tiny else 4):  # graphs are recorded in the second and third
        step()
    wait_for(device)
    first, steps = time.perf_counter() - begin, 2 if setting.tiny else 20
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    wait_for(device)
    seconds = (time.perf_counter() - begin) / steps
    layout = "channels last" if channels_last else "contiguous"
    compiling = {"off": "", "cuda_graphs": ", CUDA graphs", "inductor": ", inductor"}[how]
    return Alone(layout + compiling, how, channels_last, seconds, first)


def train_here(setting: Setting, args: Any, train: list[Case], validation: list[Case], best: Alone) -> Here:
    """This project's training with what was fastest alone; its seconds hold reading the cases."""
    begin = time.perf_counter()
    config = with_gpu(configuration(args, args.network[0], train), setting, best)
    cases, times = tensors_of(train, config), EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(cases, None, config, folder=Path(folder), tracker=times)
    seconds = time.perf_counter() - begin
    rate = (args.epochs - 1) * len(train) / (times.at[args.epochs] - times.at[1])
    pace = float(np.mean([times.pace[epoch] for epoch in range(2, args.epochs + 1)]))
    images = tensors_of(validation, config).images
    network = fitted.network.to(setting.device)
    places = torch.split(torch.arange(len(validation)), args.batch)
    logits = np.concatenate([predict_logits(network, images[some], batch_size=args.batch) for some in places])
    labels = np.array([case.label for case in validation])
    patients = np.array([str(case.patient_id) for case in validation])
    side = Side(rate, seconds, labels, logits.reshape(len(labels), -1)[:, 0], patients)
    return Here(side, pace, profile(cases, config) if setting.profile else {})


def with_gpu(config: Config, setting: Setting, best: Alone) -> Config:
    """The configuration with its device, and what was fastest there."""
    gpu = config.training.gpu.model_copy(
        update={"compile": best.compile, "channels_last": best.channels_last, "deterministic": False}
    )
    workers = min(4, setting.cores) if setting.on_gpu else 0
    accelerator = "gpu" if setting.on_gpu else "cpu"
    training = config.training.model_copy(update={"gpu": gpu, "accelerator": accelerator, "loader_workers": workers})
    return config.model_copy(update={"training": training})


def profile(cases: CaseTensors, config: Config) -> dict[str, float]:
    """Shares of the time of a short training of its own, since waiting for the device costs speed."""
    times = EpochTimes()
    short = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 2})})
    with tempfile.TemporaryDirectory() as folder:
        fit(cases, None, short, folder=Path(folder), tracker=times, profile=True)
    return times.shares


def _profile(label: str, here: Here) -> list[Row]:
    if not here.shares:
        return []
    said = ", ".join(f"{part} {share:.0%}" for part, share in here.shares.items())
    return [Row(f"{label}: where the time goes", said, figures=here.shares)]


def against_stock(
    setting: Setting, args: Any, train: list[Case], validation: list[Case], here: Here, label: str
) -> list[Row]:
    """The script on the same cases under bf16, and the AUROC of both."""
    ours = here.side
    if setting.stock is None:
        return [
            Row(f"{label}: AUROC", _auroc(ours)),
            Row(f"{label}: against the stock chain", "skipped: --stock was not given"),
        ]
    stock = run_stock(args, train, validation)
    ratio = ours.rate / stock.rate
    return [
        Row(
            f"{label}: against the stock chain",
            f"{ratio:.2f} times its {stock.rate:.1f} cases per second",
            f">= {_TIMES_STOCK:g} times",
            _judged(setting, ratio >= _TIMES_STOCK),
            {"ratio": ratio, "stock": stock.rate},
        ),
        Row(f"{label}: AUROC", f"here {_auroc(ours)}, there {_auroc(stock)}, difference {_gain(ours, stock)}"),
    ]


def _auroc(side: Side) -> str:
    try:
        return str(auroc_interval(side.labels, side.logits, side.patients))
    except UndefinedMetricError as error:  # costs no speed its line
        return f"undefined ({error})"


def _gain(ours: Side, stock: Side) -> str:
    rng = np.random.default_rng(0)
    try:
        return str(paired_auroc_difference(stock.labels, ours.logits, stock.logits, stock.patients, rng=rng))
    except UndefinedMetricError as error:
        return f"undefined ({error})"


def _judged(setting: Setting, passed: bool) -> bool | None:
    """Speeds of tiny sizes on a CPU are no goal's."""
    return None if setting.tiny else passed
