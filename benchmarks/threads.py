#!/usr/bin/env python3
"""How fast small networks train with other thread policies, alone and beside a busy process, and several at a time.

    python benchmarks/threads.py
    python benchmarks/threads.py --seconds 2 --repeats 1 --cases 64 --epochs 2   # a quick look

The first table is of training steps of one network (``compact``, 2D, 48 x 48, batches of 32, bf16), in processes that
take turns: with all threads, with all threads of which those that wait sleep at once, and with one thread. "Beside" is
beside one process that multiplies matrices with two threads all the time. The second is of five networks of one
training, one after the other and at the same time. Prints the tables and last one JSON line; ``ratio`` is the time one
after the other over that at the same time, alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pipeline.config.experiment import Config
from pipeline.config.training import Network
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.networks import NetworkTask, fit_networks
from pipeline.training.tracker import NullTracker

VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
POLICIES: dict[str, tuple[dict[str, str], int | None]] = {
    "all": ({}, None),
    "all, asleep at once": ({"OMP_WAIT_POLICY": "PASSIVE"}, None),
    "one": ({}, 1),
}
BUSY = "import torch; a = torch.rand(600, 600); torch.set_num_threads(2)\nwhile True: a = (a @ a).clamp(-1, 1)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of training steps in each process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each policy; the median is shown")
    parser.add_argument("--cases", type=int, default=640, help="of each of five networks")
    parser.add_argument("--epochs", type=int, default=20, help="of each of five networks")
    parser.add_argument("--steps", nargs=2, metavar=("THREADS", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps:
        print(cases_a_second(int(args.steps[0]), float(args.steps[1])))
        return
    ways = {"in turn": 1, "at once": 5}
    alone = measured(args.seconds, args.repeats)
    seconds = {name: seconds_of_networks(args.cases, args.epochs, at_once) for name, at_once in ways.items()}
    with busy_process():
        beside = measured(args.seconds, args.repeats)
        slowed = {name: seconds_of_networks(args.cases, args.epochs, at_once) for name, at_once in ways.items()}
    table = Table("threads", "alone, cases/s", "beside a busy process", title=f"{torch.get_num_threads()} threads")
    for name in POLICIES:
        table.add_row(name, f"{alone[name]:.0f}", f"{beside[name]:.0f}")
    networks = Table("five networks", "alone, s", "beside a busy process")
    for name in ways:
        networks.add_row(name, f"{seconds[name]:.1f}", f"{slowed[name]:.1f}")
    console = Console()
    console.print(table, networks)
    ratios = [times["in turn"] / times["at once"] for times in (seconds, slowed)]
    print(json.dumps({"ratio": ratios[0], "ratio_beside": ratios[1], "alone": alone, "beside": beside}))


def measured(seconds: float, repeats: int) -> dict[str, float]:
    """Cases a second by policy, the median over processes that take turns."""
    found: dict[str, list[float]] = {name: [] for name in POLICIES}
    for _ in range(repeats):
        for name, (variables, threads) in POLICIES.items():
            found[name].append(in_process(variables, threads or torch.get_num_threads(), seconds))
    return {name: median(values) for name, values in found.items()}


def in_process(variables: Mapping[str, str], threads: int, seconds: float) -> float:
    """Cases a second of a process with these variables."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, __file__, "--steps", str(threads), str(seconds)]
    return float(subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True).stdout)


def cases_a_second(threads: int, seconds: float) -> float:
    """Training steps on resident cases for some seconds."""
    torch.set_num_threads(threads)
    network = build_network(Network(name="compact"), dimensions=2)
    to_fast_layout(network)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    images, labels = torch.rand(32, 1, 48, 48), (torch.rand(32, 1) > 0.5).float()
    begin, done = 0.0, 0
    for step in range(10**9):
        if step == 5:  # the first ones choose kernels
            begin, done = time.perf_counter(), 0
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images).float()
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
        done += len(images)
        if step > 5 and time.perf_counter() - begin > seconds:
            break
    return done / (time.perf_counter() - begin)


def seconds_of_networks(cases: int, epochs: int, at_once: int) -> float:
    """Time to fit five networks of made-up cases."""
    rows = list(np.random.default_rng(0).random((cases, 1, 48, 48), np.float32))
    inputs = CaseTensors.from_arrays(ImageRows(rows), np.arange(cases) % 2, [str(number) for number in range(cases)])
    config = Config.model_validate(
        {
            "name": "threads",
            "data": {"manifest": "none.csv", "modality": "CT", "label_source": "made up"},
            "preprocessing": {"dimensions": 2, "region": "image", "size": [48, 48], "spacing_mm": [1.0, 1.0]},
            "training": {"max_epochs": epochs, "early_stopping": None, "networks_at_once": at_once},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        tasks = [NetworkTask(inputs, None, config, Path(folder) / str(number), NullTracker()) for number in range(5)]
        begin = time.perf_counter()
        fit_networks(tasks)
        return time.perf_counter() - begin


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes with two threads all the time."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
