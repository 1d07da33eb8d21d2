#!/usr/bin/env python3
"""Scoring whole CTs from file to row: this project beside what a MONAI user writes, in one run on one machine.

    python benchmarks/scoring_speed.py --stock stock_scoring.py --make-ct make_ct.py [--cases 6] [--workers 2]

``--stock`` is the baseline script: it takes a manifest and a file to write, and prints one JSON line with
``cases_per_second``. ``--make-ct`` writes CTs of 512 x 512 x 200 voxels as .nii.gz with a manifest. The network is
DenseNet121 at 64 voxels of 1 mm, with weights drawn from a seed; the baseline runs the same architecture.

Our side is the command ``malignancy score``, on a manifest that names each CT several times, so that the rate is one of
work and not of start-up. The rate of the work is taken from the first row to the last; start-up (imports, loading,
golden scans) is printed apart. A third line is the bound: as many processes do nothing but decompress the same files
with isal and run the network, back to back. Memory is the largest sum of proportional set sizes of all processes.
Prints a table, and last one JSON line, ``ratio`` (our cases per second over the baseline's) first.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from random_model import write_random_model

from pipeline.config.training import Network

SIZE, SPACING_MM = 64, 1.0


def repeat_manifest(manifest: Path, times: int) -> Path:
    """The same cases several times, under other ids."""
    with open(manifest, newline="") as handle:
        rows = list(csv.DictReader(handle))
    repeated = manifest.with_name("repeated.csv")
    with open(repeated, "w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows({**row, "case_id": f"{row['case_id']}-{turn}"} for turn in range(times) for row in rows)
    return repeated


def stock_side(script: Path, manifest: Path, out: Path, workers: int) -> dict[str, float]:
    """The baseline as it is, with its own clock."""
    command = [sys.executable, str(script), str(manifest), str(out / "stock.csv"), "--workers", str(workers)]
    done, memory = run_and_watch([*command, "--roi", str(SIZE), "--spacing", str(SPACING_MM)])
    return {"rate": json.loads(done.splitlines()[-1])["cases_per_second"], "memory_mb": memory, "start_seconds": 0.0}


def our_side(model: Path, manifest: Path, out: Path, workers: int, batch_size: int, backend: str) -> dict[str, float]:
    """The whole command; the moments of its rows are read from the row count of its progress."""
    command = [sys.executable, __file__, "--ours", str(model), str(manifest), str(out / "ours")]
    command += ["--workers", str(workers), "--batch-size", str(batch_size), "--backend", backend]
    done, memory = run_and_watch(command)
    return {**json.loads(done.splitlines()[-1]), "memory_mb": memory}


def score_and_time(model: str, manifest: str, out: str, args: argparse.Namespace) -> None:
    """Run the job in this process and note when each row reaches the sink."""
    from pipeline.jobs.score import ScoreOptions, score
    from pipeline.scoring.sink import Sink

    start, moments = time.perf_counter(), []
    append = Sink.append

    def noted(sink: Sink[Any], row: object) -> None:
        append(sink, row)
        moments.append(time.perf_counter())

    Sink.append = noted  # type: ignore[method-assign,assignment]
    options = ScoreOptions(workers=args.workers, batch_size=args.batch_size, backend=args.backend, track=False)
    score(model, manifest, Path(out), options)
    first = args.workers * args.batch_size  # rows that were under way together when the first came out
    rate = (len(moments) - first) / (moments[-1] - moments[first - 1])
    print(json.dumps({"rate": rate, "start_seconds": moments[-1] - start - len(moments) / rate}))


def bound_side(model: Path, manifest: Path, workers: int, times: int) -> dict[str, float]:
    """Processes that only decompress and run the network."""
    with open(manifest, newline="") as handle:
        files = [str(manifest.parent / row["image"]) for row in csv.DictReader(handle)] * times
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.SimpleQueue()
    shares = [files[number::workers] for number in range(workers)]
    processes = [context.Process(target=_merely, args=(model, share, barrier, results)) for share in shares]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return {"rate": len(files) / max(spans), "memory_mb": float("nan"), "start_seconds": 0.0}


def _merely(model: Path, files: list[str], barrier: object, results: object) -> None:
    import numpy as np
    import torch
    from isal import igzip

    from pipeline.scoring.backends import build_predict
    from pipeline.scoring.model_directory import load_model

    torch.set_num_threads(1)
    shape = (1, SIZE, SIZE, SIZE)
    predict = build_predict(load_model(model).members[0].network, "eager", shape=shape)
    image = np.zeros((1, *shape), np.float32)
    predict(image)
    barrier.wait()  # type: ignore[attr-defined]
    start = time.perf_counter()
    for file in files:
        with igzip.open(file, "rb") as handle:
            while handle.read(1 << 20):
                pass
        predict(image)
    results.put(time.perf_counter() - start)  # type: ignore[attr-defined]


def run_and_watch(command: list[str]) -> tuple[str, float]:
    """Standard output of a command, and the peak of its processes' summed PSS in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            peak[0] = max(peak[0], _pss_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode not in (0, 1):
        sys.exit(err)
    return out, peak[0]


def _pss_mb(pid: int) -> float:
    total = 0.0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss / 2**20
    except psutil.Error:
        pass
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock", type=Path)
    parser.add_argument("--make-ct", type=Path)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=6, help="times our side and the bound see each CT")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        score_and_time(*args.ours, args)
        return
    if not args.stock or not args.make_ct:
        parser.error("give --stock and --make-ct")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(args.make_ct), str(folder / "ct"), "--cases", str(args.cases)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        write_random_model(folder / "model", Network(name="densenet121"), side=SIZE)
        manifest = folder / "ct" / "manifest.csv"
        repeated = repeat_manifest(manifest, args.repeats)
        sides = {
            "stock": stock_side(args.stock, manifest, folder, args.workers),
            "ours": our_side(folder / "model", repeated, folder, args.workers, args.batch_size, args.backend),
            "bound": bound_side(folder / "model", manifest, args.workers, args.repeats),
        }
    names = {"stock": "ordinary MONAI script", "ours": "malignancy score", "bound": "only isal and the network"}
    print(f"| {'512 x 512 x 200 .nii.gz, DenseNet121 at 64^3':<46} | cases per second | peak PSS | start-up |")
    print(f"|{'-' * 48}|{'-' * 18}|{'-' * 10}|{'-' * 10}|")
    for side, found in sides.items():
        memory = f"{found['memory_mb']:5.0f} MB" if found["memory_mb"] == found["memory_mb"] else "       -"
        print(f"| {names[side]:<46} | {found['rate']:16.3f} | {memory} | {found['start_seconds']:6.1f} s |")
    ours, stock, bound = (sides[side]["rate"] for side in ("ours", "stock", "bound"))
    figures = {"ratio": round(ours / stock, 2), "ours_over_bound": round(ours / bound, 3), "workers": args.workers}
    print(json.dumps({**figures, "pss_mb": round(sides["ours"]["memory_mb"]), "cases": args.cases}))


if __name__ == "__main__":
    main()
