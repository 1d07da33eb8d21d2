#!/usr/bin/env python3
"""What layout, precision, threads and torch.compile make of a training step, network by network.

    python benchmarks/training_compute.py [--networks compact resnet18 densenet121] [--size 48] [--batch 8] [--steps 3]
                                           [--without compiled]

Steps of forward, backward and AdamW on one batch that is there already; the best of ``--steps`` after two to warm up,
all variants of a network in turn, since a shared machine's pace drifts. Ratios are to the way training does it here in
fp32: channels-last weights, every core. For ``torch.compile`` the first step's time is what compiling costs, and "pays
back" the number of cases after which the faster steps have earned it. Prints a table and last one JSON line; ``ratio``
is that of the first network compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pipeline.config.training import NETWORKS, Network
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["compact", "resnet18", "densenet121"])
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=3)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--without", nargs="+", choices=[*variants(1)][1:], default=[], help="what to leave out")
    args = parser.parse_args()
    threads = torch.get_num_threads()
    table = Table("network", "what", "ms a case", "ratio", "first step, s", "pays back after, cases")
    ratios = {}
    for name in args.networks:
        measured = measure(name, args, threads)
        usual = measured["channels last"][1]
        for what, (first, seconds) in measured.items():
            ratio, saved = usual / seconds, usual - seconds
            pays = f"{max(first - seconds, 0) / saved:.0f}" if "compile" in what and saved > 0 else ""
            table.add_row(name, what, f"{1000 * seconds:.1f}", f"{ratio:.2f}", f"{first * args.batch:.1f}", pays)
            ratios[f"{name}, {what}"] = round(ratio, 3)
    Console(width=120).print(table)
    print(json.dumps({"ratio": ratios.get(f"{args.networks[0]}, compiled"), "ratios": ratios, "threads": threads}))


def variants(threads: int) -> dict[str, dict[str, Any]]:
    """What is measured, the usual way first."""
    return {
        "channels last": {"threads": threads},
        "contiguous": {"threads": threads, "channels_last": False},
        "one thread": {"threads": 1},
        "bf16": {"threads": threads, "bf16": True},
        "bf16, stem not folded": {"threads": threads, "bf16": True, "plain": (nn.Conv2d, nn.Conv3d)},
        "bf16, pooling in fp32": {"threads": threads, "bf16": True, "plain": (nn.MaxPool3d, nn.AvgPool3d)},
        "compiled": {"threads": threads, "compiled": True},
    }


def measure(name: str, args: argparse.Namespace, threads: int) -> dict[str, tuple[float, float]]:
    """Seconds a case of each variant's first step and of the best later one."""
    steps = {
        what: training_step(name, args, **options)
        for what, options in variants(threads).items()
        if what not in args.without
    }
    seconds: dict[str, list[float]] = {what: [] for what in steps}
    for _ in range(args.steps + 2):
        for what, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[what].append((time.perf_counter() - begun) / args.batch)
    torch.compiler.reset()
    return {what: (found[0], min(found[2:])) for what, found in seconds.items()}


def training_step(
    name: str,
    args: argparse.Namespace,
    *,
    threads: int,
    channels_last: bool = True,
    bf16: bool = False,
    plain: Sequence[type[nn.Module]] = (),
    compiled: bool = False,
) -> Callable[[], None]:
    """One optimiser step on one resident batch; ``plain`` layers are torch's own."""
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=args.dimensions).train()
    if channels_last:
        to_fast_layout(network)
    for module in network.modules():
        module.__class__ = next((kind for kind in plain if isinstance(module, kind)), type(module))
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    images = torch.rand(args.batch, 1, *[args.size] * args.dimensions)
    targets = torch.arange(args.batch) % 2.0

    def step() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = forward(images)[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
