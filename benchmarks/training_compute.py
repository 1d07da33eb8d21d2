#!/usr/bin/env python3
"""What memory format, precision, folded stems, threads and torch.compile make of a training step, network by network.

    python benchmarks/training_compute.py [--networks compact resnet18 densenet121] [--size 48] [--batch 8] [--steps 3]
                                           [--without compiled]

Steps of forward, backward and AdamW on one batch that is there already; the best of ``--steps`` after one to warm up.
Ratios are to the way training does it here: channels-last weights, fp32, every core. For ``torch.compile`` the first
step's time is what compiling costs, and "pays back" the number of cases after which the faster steps have earned it.
Prints a table and last one JSON line; ``ratio`` is that of the first network compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from pipeline.config_training import NETWORKS, Network
from pipeline.models.layout import to_fast_layout
from pipeline.models.networks import build_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["compact", "resnet18", "densenet121"])
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=3)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--without", nargs="+", choices=variants(1), default=[], help="what to leave out")
    args = parser.parse_args()
    threads = torch.get_num_threads()
    table = Table("network", "what", "ms a case", "ratio", "first step, s", "pays back after, cases")
    ratios = {}
    for name in args.networks:
        measured = {}
        for what, options in variants(threads).items():
            if what in args.without:
                continue
            first, seconds = step_seconds(name, args, **options)
            measured[what] = seconds
            ratio = measured["channels last"] / seconds
            saved = measured["channels last"] - seconds
            pays = f"{max(first - seconds, 0) / saved:.0f}" if "compile" in what and saved > 0 else ""
            table.add_row(name, what, f"{1000 * seconds:.1f}", f"{ratio:.2f}", f"{first * args.batch:.1f}", pays)
            ratios[f"{name}, {what}"] = round(ratio, 3)
    Console(width=120).print(table)
    print(json.dumps({"ratio": ratios.get(f"{args.networks[0]}, compiled"), "ratios": ratios, "threads": threads}))


def variants(threads: int) -> dict[str, dict[str, object]]:
    """What is measured, the usual way first."""
    found: dict[str, dict[str, object]] = {
        "channels last": {"threads": threads},
        "contiguous": {"threads": threads, "channels_last": False},
        "one thread": {"threads": 1},
        "bf16": {"threads": threads, "bf16": True},
        "bf16, stem not folded": {"threads": threads, "bf16": True, "folded": False},
        "compiled": {"threads": threads, "compiled": True},
    }
    return found


def step_seconds(
    name: str,
    args: argparse.Namespace,
    *,
    threads: int,
    channels_last: bool = True,
    bf16: bool = False,
    folded: bool = True,
    compiled: bool = False,
) -> tuple[float, float]:
    """Seconds a case of the first step and of the best later one."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=args.dimensions).train()
    if channels_last:
        to_fast_layout(network)
    for module in () if folded else network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            module.__class__ = torch.nn.Conv2d if isinstance(module, torch.nn.Conv2d) else torch.nn.Conv3d
    step = training_step(torch.compile(network) if compiled else network, network, args, bf16=bf16)
    times = []
    for _ in range(args.steps + 2):
        begun = time.perf_counter()
        step()
        times.append((time.perf_counter() - begun) / args.batch)
    torch.compiler.reset()
    return times[0], min(times[2:], default=math.nan)


def training_step(
    forward: Callable[[torch.Tensor], torch.Tensor], network: torch.nn.Module, args: argparse.Namespace, *, bf16: bool
) -> Callable[[], None]:
    """One optimiser step on one resident batch."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    images = torch.rand(args.batch, 1, *[args.size] * args.dimensions)
    targets = torch.arange(args.batch) % 2.0

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = forward(images)[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
