#!/usr/bin/env python3
"""The engines' own cost on very many tiny scans: memory as the rows grow, time above a plain loop, more workers.

    python benchmarks/scoring_scale.py [--scans 100000] [--workers 2]
    python benchmarks/scoring_scale.py --engine ray --scans 4000 --workers 1 2 4

A few tiny CT crops are written, and a manifest that names them ``--scans`` times; the network is a small one. Overhead
per scan is wall time x busy cores / scans, less what reading, preprocessing and the network cost in a plain loop of as
many processes in the same run; the same is given in processor time of all processes, which neighbours on the machine
disturb less. Memory is the summed PSS of all processes: its growth from row 5,000 to the last. Of a run on Ray, whose
processes end before their last rows are handed out, neither processor time nor growth is told. Efficiency is the rate
over that of the first number of workers and the cores that the others could add. Prints a table, and last one JSON line
of the first number of workers, ``ratio`` (plain loop's time over the engine's) first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import torch
from random_model import write_random_model

from pipeline.cases.case import Case
from pipeline.config.training import Network
from pipeline.scoring.engines.local import score_in_processes
from pipeline.scoring.engines.ray_engine import score_on_ray
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.rows import ScoreTables
from pipeline.scoring.scorer import Scorer
from pipeline.scoring.sink import RunHeader, Sink

FILES, SETTLED, CENTER = 50, 5000, (0.0, 0.0, 0.0)


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


def processor_seconds() -> float:
    """Of all living processes of this run together; what ended processes used is in their parents' children's time."""
    ours = psutil.Process()
    times = [each.cpu_times() for each in [ours, *ours.children(recursive=True)]]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


@dataclass
class Measured:
    """One run, without its first quarter, in which workers warm up."""

    workers: int
    busy: int  # cores that its workers can use
    scans_per_second: float
    processor_ms: float | None  # a scan
    settled_mb: float | None  # summed PSS after row 5,000; None with fewer rows
    last_mb: float | None

    @property
    def wall_ms(self) -> float:
        """Wall time x busy cores / scans."""
        return 1000 * self.busy / self.scans_per_second

    @property
    def growth_mb(self) -> float | None:
        """From row 5,000 to the last."""
        return None if self.settled_mb is None or self.last_mb is None else self.last_mb - self.settled_mb


def score_all(folder: Path, paths: list[Path], workers: int, args: argparse.Namespace) -> Measured:
    """The whole way from cases to ``scores.parquet``."""
    setup = ScorerSetup((folder / "model",))
    identity = setup.build().identity
    out = folder / f"out-{workers}"
    out.mkdir()
    cases = (Case(str(n), paths[n % FILES].name, paths[n % FILES], center_mm=CENTER) for n in range(args.scans))
    engine = score_on_ray if args.engine == "ray" else score_in_processes
    warm, settled = max(64 * workers, args.scans // 4), None  # Ray works ahead of the rows that it hands out
    start, used = time.perf_counter(), processor_seconds()
    with exclusive(out):
        sink = Sink(out, RunHeader(identity, 0, "scans", 0.5), ScoreTables())
        for number, row in enumerate(engine(setup, cases, identity, workers=workers, batch_size=args.batch_size), 1):
            sink.append(row)
            if number == warm:
                start, used = time.perf_counter(), processor_seconds()
            if number == SETTLED:
                settled = summed_pss_mb()
            if number % SETTLED == 0:
                elapsed, busy_seconds = time.perf_counter() - start, processor_seconds() - used
                print(
                    f"{number} rows: {summed_pss_mb():.0f} MB, {elapsed:.0f} s, {busy_seconds:.0f} s of processors",
                    file=sys.stderr,
                    flush=True,
                )
            if number == args.scans:
                seconds, used, last = time.perf_counter() - start, processor_seconds() - used, summed_pss_mb()
        assert sink.finish().total == args.scans
    rows = args.scans - warm
    busy = min(workers, len(os.sched_getaffinity(0)))
    if args.engine == "ray":
        return Measured(workers, busy, rows / seconds, None, settled, None)
    return Measured(workers, busy, rows / seconds, 1000 * used / rows, settled, last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=100_000)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_model(folder / "model", Network(width=4), side=28)
        paths = write_files(folder / "scans")
        cases = [Case(str(n), path.name, path, center_mm=CENTER) for n, path in enumerate(paths)]
        first: Measured | None = None
        figures: dict[str, float | None] = {}
        print(
            f"{args.scans} scans, engine {args.engine}; milliseconds a scan: wall time x busy cores (processor time)\n"
        )
        print("| workers | scans/s | efficiency | plain loop | engine and sink | overhead | memory at 5,000, growth |")
        print("|---|---|---|---|---|---|---|")
        for workers in args.workers:
            plain_ms, plain_processor_ms = plain_loop(cases, folder, args.batch_size, workers)
            found = score_all(folder, paths, workers, args)
            first = first or found
            efficiency = found.scans_per_second * first.busy / (first.scans_per_second * found.busy)
            over = found.wall_ms - plain_ms
            over_processor = None if found.processor_ms is None else found.processor_ms - plain_processor_ms
            print(
                f"| {workers} | {found.scans_per_second:.0f} | {efficiency:.2f} | {cell(plain_ms, plain_processor_ms)} "
                f"| {cell(found.wall_ms, found.processor_ms)} | {cell(over, over_processor)} "
                f"| {rounded(found.settled_mb, 0)} MB, {rounded(found.growth_mb, 1)} MB |",
                flush=True,
            )
            figures = figures or {
                "ratio": round(plain_ms / found.wall_ms, 3),
                "overhead_ms": round(over, 3),
                "overhead_processor_ms": rounded(over_processor, 3),
                "growth_mb": rounded(found.growth_mb, 1),
                "efficiency": round(efficiency, 3),
                "workers": workers,
                "scans": args.scans,
            }
    print(json.dumps(figures))


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def cell(wall_ms: float, processor_ms: float | None) -> str:
    return f"{wall_ms:.2f}" if processor_ms is None else f"{wall_ms:.2f} ({processor_ms:.2f})"


def plain_loop(cases: list[Case], folder: Path, batch_size: int, workers: int) -> tuple[float, float]:
    """Milliseconds a case of the same work without an engine, wall x busy cores and processor time."""
    processes = min(workers, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_loop, cases, folder / "model", batch_size) for _ in range(processes)]
        wall, used = zip(*(job.result() for job in jobs), strict=True)
    return 1000 * max(wall), 1000 * sum(used) / len(used)


def _loop(cases: list[Case], model: Path, batch_size: int, turns: int = 40) -> tuple[float, float]:
    torch.set_num_threads(1)
    scorer = Scorer(load_model(model), device="cpu")
    scorer.score([scorer.prepare(case) for case in cases[:batch_size]])
    start, used = time.perf_counter(), time.process_time()
    for _ in range(turns):
        for first in range(0, len(cases), batch_size):
            scorer.score([scorer.prepare(case) for case in cases[first : first + batch_size]])
    scored = turns * len(cases)
    return (time.perf_counter() - start) / scored, (time.process_time() - used) / scored


if __name__ == "__main__":
    main()
