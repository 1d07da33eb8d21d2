"""What a GPU computes, how fast, and what it survives: one command, one table, one line of JSON.

    python benchmarks/gpu.py [--stock FILE] [--stock-scoring FILE] [--profile] [--parts NAME ...]
    python benchmarks/gpu.py --device cpu --tiny    # every part with sizes that a CPU does in seconds

Needs this package and a torch that sees a CUDA device, and takes less than 9 minutes with 16 cores. ``--stock`` is the
script that trains as a MONAI user does, ``--stock-scoring`` the one that scores so; without one its comparison is
skipped, and the table says so. Each part runs in a process of its own under its own time limit; one that fails is a
line of the table, and the others run. The exit code is 1 when a part failed or a goal was missed.

Goals: fp32 logits within 1e-4 and probabilities within 1e-5 of a CPU's, golden scans pass; training at 5 times the
stock chain, both in bf16, and at 70 % of the network alone on tensors that are on the device already. Last one JSON
line, ``ratio`` (the smallest ratio to the stock chain; null without it) first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Asked otherwise whether there is a GPU, torch would bind CUDA to this process, and its children could not use it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import gpu_faults
import gpu_parity
import gpu_scoring
import gpu_training
import torch
from gpu_rows import Row, Setting
from rich.table import Table

from pipeline.console import table_text
from pipeline.machine import usable_cores

_FORK = multiprocessing.get_context("fork")
_WHOLE_SECONDS = 530.0


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: on the command line.
        work: what it does.
        seconds: that it may take.
    """

    name: str
    work: Callable[[Setting], list[Row]]
    seconds: float


def _training(network: str, size: int, seconds: float) -> Part:
    return Part(
        f"training-{network}-{size}", partial(gpu_training.compare, network=network, size=size), seconds=seconds
    )


PARTS = (
    Part("card", lambda setting: card(setting), 20),
    Part("logits", gpu_parity.networks, 40),
    Part("probabilities", gpu_parity.scoring, 40),
    Part("cases", gpu_training.write_cases, 60),
    _training("resnet18", 48, 90),
    _training("densenet121", 48, 70),
    _training("resnet18", 96, 70),
    _training("densenet121", 96, 90),
    Part("scoring", gpu_scoring.throughput, 90),
    Part("resume", gpu_faults.resume, 60),
    Part("memory", gpu_faults.memory, 60),
    Part("two-processes", gpu_faults.two_processes, 60),
    Part("devices", gpu_faults.distributed, 60),
)


def card(setting: Setting) -> list[Row]:
    """What computes here."""
    if not setting.on_gpu:
        return [Row("device", f"CPU, torch {torch.__version__}", figures={"card": "none"})]
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device; install a CUDA build of torch, or give --device cpu --tiny")
    facts = torch.cuda.get_device_properties(0)
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    memory = f"{facts.total_memory / 2**30:.0f} GiB"
    return [Row("device", f"{facts.name}, {memory}, {versions}", figures={"card": facts.name, "torch": versions})]


def run_part(part: Part, setting: Setting, *, seconds: float) -> list[Row]:
    """A part's rows; one row that says why, when it fails or is not done in time."""
    if seconds <= 0:
        return [Row(part.name, "not run: the time was up", "runs", passed=False)]
    here, there = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_run, args=(part, setting, there))
    process.start()
    there.close()
    begin = time.monotonic()
    try:
        rows: list[Row] = here.recv() if here.poll(seconds) else _late(part, time.monotonic() - begin)
    except EOFError:
        process.join(5)
        rows = [Row(part.name, f"its process ended with exit code {process.exitcode}", "runs", passed=False)]
    finally:
        assert process.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
        process.join()
    return rows


def _late(part: Part, seconds: float) -> list[Row]:
    return [Row(part.name, f"stopped after {seconds:.0f} s", "in time", passed=False)]


def _run(part: Part, setting: Setting, there: Any) -> None:
    os.setpgrp()
    try:
        if torch.cuda._is_in_bad_fork():
            raise RuntimeError("an import has used CUDA before the parts were started; report which torch this is")
        rows = part.work(setting)
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is this part's line, and the others run
        traceback.print_exc()
        reason = next(iter(str(error).splitlines()), "")
        rows = [Row(part.name, f"{type(error).__name__}: {reason}", "runs", passed=False)]
    there.send(rows)


def table(found: dict[str, list[Row]]) -> str:
    """All rows, with the verdict on each that has a goal."""
    shown = Table("part", "what", "result", "goal", "")
    for name, rows in found.items():
        for row in rows:
            verdict = "" if row.passed is None else ("ok" if row.passed else "MISSED")
            shown.add_row(name, row.what, row.result, row.goal, verdict)
    return str(table_text(shown, width=170))


def summary(found: dict[str, list[Row]], seconds: float) -> dict[str, Any]:
    """The JSON line."""
    rows = [row for part in found.values() for row in part]
    ratios = [
        row.figures["ratio"]
        for name, part in found.items()
        if name.startswith("training-")
        for row in part
        if "ratio" in row.figures
    ]
    return {
        "ratio": round(min(ratios), 3) if ratios else None,
        "card": next((row.figures["card"] for row in rows if "card" in row.figures), None),
        "seconds": round(seconds, 1),
        "missed": [row.what for row in rows if row.passed is False],
        "parts": {name: [row.to_json() for row in part] for name, part in found.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes of seconds, whose figures mean nothing")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="instead of all")
    parser.add_argument("--stock", type=Path, help="the ordinary training script")
    parser.add_argument("--stock-scoring", type=Path, help="the ordinary scoring script")
    parser.add_argument("--profile", action="store_true", help="where the time of each training goes")
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.tiny:
        parser.error("--device cpu: give --tiny too; the whole sizes take a CPU hours")
    named = {part.name for part in PARTS} if args.parts is None else {"card", *args.parts}
    if any(name.startswith("training-") for name in named):
        named.add("cases")
    chosen = [part for part in PARTS if part.name in named]
    begin, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="malignancy-gpu-") as folder:
        setting = Setting(
            device=args.device,
            tiny=args.tiny,
            folder=Path(folder),
            cores=usable_cores(),
            profile=args.profile,
            stock=args.stock and args.stock.absolute(),
            stock_scoring=args.stock_scoring and args.stock_scoring.absolute(),
        )
        for part in chosen:
            since = time.monotonic() - begin
            print(f"{since:5.0f} s  {part.name}", file=sys.stderr, flush=True)
            found[part.name] = run_part(part, setting, seconds=min(part.seconds, _WHOLE_SECONDS - since))
    figures = summary(found, time.monotonic() - begin)
    print(table(found))
    print(json.dumps(figures))
    return 1 if figures["missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
