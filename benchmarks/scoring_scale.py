#!/usr/bin/env python3
"""The engine's own cost on very many tiny scans: memory as the rows grow, and time above a plain loop.

    python benchmarks/scoring_scale.py [--scans 100000] [--workers 2]

A few tiny CT crops are written, and a manifest that names them ``--scans`` times; the network is a small one. Overhead
per scan is wall time x workers / scans, less what reading, preprocessing and the network cost in a plain loop of one
process in the same run. Memory is the summed PSS of all processes: its growth from the row 5,000 to the last.
Prints a table, and last one JSON line, ``ratio`` (plain loop's time over the engine's processor time) first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import torch
from random_model import write_random_model

from pipeline.cases.case import Case
from pipeline.config import Network
from pipeline.scoring.local import score_in_processes
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.scoring.sink import RunHeader, Sink
from pipeline.scoring.workers import ScorerSetup

FILES, SETTLED = 50, 5000


def write_files(folder: Path) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -16
    paths = [folder / f"{number}.nii.gz" for number in range(FILES)]
    for path in paths:
        voxels = rng.normal(-850, 40, (16, 16, 16))
        voxels[6:10, 6:10, 6:10] += 700
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), path)
    return paths


def summed_pss_mb() -> float:
    ours = psutil.Process()
    return sum(each.memory_full_info().pss for each in [ours, *ours.children(recursive=True)]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_model(folder / "model", Network(width=4), side=28)
        paths = write_files(folder / "scans")
        center = (0.0, 0.0, 0.0)
        cases = (Case(str(n), paths[n % FILES].name, paths[n % FILES], center_mm=center) for n in range(args.scans))
        plain = plain_loop(
            [Case(str(n), path.name, path, center_mm=center) for n, path in enumerate(paths)], folder, args
        )
        setup = ScorerSetup((folder / "model",))
        stamp = setup.build().stamp
        (folder / "out").mkdir()
        memory, moments = [], []
        with exclusive(folder / "out"):
            sink = Sink(folder / "out", RunHeader(stamp, 0, "scans", 0.5))
            options = {"workers": args.workers, "batch_size": args.batch_size}
            for number, row in enumerate(score_in_processes(setup, cases, stamp, **options)):  # type: ignore[arg-type]
                sink.append(row)
                if number % SETTLED == SETTLED - 1 or number == args.scans - 1:
                    memory.append(summed_pss_mb())
                if number in (args.batch_size * args.workers, args.scans - 1):
                    moments.append(time.perf_counter())
            rows = sink.finish().total
    seconds = (moments[1] - moments[0]) * args.workers / (args.scans - args.batch_size * args.workers)
    growth = memory[-1] - memory[0]
    print(f"| {rows} scans, {args.workers} workers | |")
    print("|---|---|")
    print(f"| plain loop, per scan | {1000 * plain:.2f} ms |")
    print(f"| engine and sink, processor time per scan | {1000 * seconds:.2f} ms |")
    print(f"| overhead per scan | {1000 * (seconds - plain):.2f} ms |")
    print(f"| summed PSS after {SETTLED} rows, and growth to the last | {memory[0]:.0f} MB, {growth:+.1f} MB |")
    figures = {"ratio": round(plain / seconds, 3), "overhead_ms": round(1000 * (seconds - plain), 3)}
    print(json.dumps({**figures, "growth_mb": round(growth, 1), "pss_mb": round(max(memory)), "scans": rows}))


def plain_loop(cases: list[Case], folder: Path, args: argparse.Namespace) -> float:
    """Seconds a case of the same work without an engine, as many processes at once as there are workers."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_loop, cases, folder / "model", args.batch_size) for _ in range(args.workers)]
        return max(job.result() for job in jobs)


def _loop(cases: list[Case], model: Path, batch_size: int, turns: int = 40) -> float:
    torch.set_num_threads(1)
    scorer = Scorer(load_model(model), device="cpu")
    scorer.score([scorer.prepare(case) for case in cases[:batch_size]])
    start = time.perf_counter()
    for _ in range(turns):
        for first in range(0, len(cases), batch_size):
            scorer.score([scorer.prepare(case) for case in cases[first : first + batch_size]])
    return (time.perf_counter() - start) / (turns * len(cases))


if __name__ == "__main__":
    main()
