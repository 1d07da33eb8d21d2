#!/usr/bin/env python3
"""Preprocessing a lesion: this project beside the ordinary MONAI chain, in one run on one machine.

    python benchmarks/preprocessing_speed.py --stock stock_scoring.py --make-ct make_ct.py [--cases 3]
    python benchmarks/preprocessing_speed.py --stock stock_scoring.py --manifest DATA/manifest.csv

``--stock`` is a script that holds the baseline chain (its ``transform``, built as the script builds it, without the
network). With ``--make-ct`` the volumes (512 x 512 x 200, .nii.gz) are made in a temporary folder. Each side runs in
a process of its own, one case after another, after a warm-up case; memory is the peak above what the process held after
its imports. A third line reads the whole gzip stream into memory with isal, and does nothing else. With ``--dicom`` the
cases are series of 200 uncompressed slices, and the third line is left out.

MONAI's chain reads a DICOM folder with ITK when the package ``itk`` is installed, else with whatever else it finds.
The project does not need it; for ``--dicom`` only, run ``pip install -c constraints.txt itk`` first. The reader that
the chain really used is printed, and another one than ITK's ends a ``--dicom`` run, because the figure is about ITK's.
Prints a table, and last one JSON line, ``ratio`` (stock seconds / ours) first.
"""

from __future__ import annotations

import argparse
import ast
import csv
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE, SPACING_MM = 64, 1.0
SIDES = {"stock": "ordinary MONAI chain", "ours": "this project", "isal": "isal read of the stream"}
Case = tuple[Path, tuple[float, ...]]
READERS_USED: set[str] = set()  # of the stock chain, in its own process


def read_cases(manifest: Path) -> list[Case]:
    """Paths and centres (RAS mm)."""
    with open(manifest, newline="") as handle:
        rows = list(csv.DictReader(handle))
    sign = {"RAS": (1, 1, 1), "LPS": (-1, -1, 1)}
    return [
        (
            manifest.parent / row["image"],
            tuple(float(row[f"center_{axis}_mm"]) * sign[row["coordinate_system"]][i] for i, axis in enumerate("xyz")),
        )
        for row in rows
    ]


def stock_side(script: Path) -> Callable[[Case], object]:
    """The baseline's own ``transform``, cut out of its ``main`` so that it is timed as it was written."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    chain = next(
        node
        for node in main.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "transform"
    )
    names: dict[str, object] = {"__name__": "stock", "args": argparse.Namespace(roi=SIZE, spacing=SPACING_MM)}
    rest = [node for node in tree.body if not isinstance(node, ast.If)]
    exec(compile(ast.Module([*rest, chain], []), str(script), "exec"), names)
    transform = names["transform"]
    _note_readers(transform)
    return lambda case: transform({"image": str(case[0]), "centre": list(case[1])})  # type: ignore[operator]


def _note_readers(transform: Any) -> None:
    """Make the chain's readers leave their names in ``READERS_USED`` when they have read something."""

    def noting(name: str, read: Callable[..., object]) -> Callable[..., object]:
        def read_and_note(*args: object, **kwargs: object) -> object:
            found = read(*args, **kwargs)
            READERS_USED.add(name)
            return found

        return read_and_note

    for reader in transform.transforms[0]._loader.readers:
        reader.read = noting(type(reader).__name__, reader.read)


def our_side(modality: str) -> Callable[[Case], object]:
    from pipeline.config.inputs import Preprocessing
    from pipeline.imaging.preprocess import ScanRequest, preprocess

    config = Preprocessing(region="lesion", size=(SIZE,) * 3, spacing_mm=(SPACING_MM,) * 3)
    return lambda case: preprocess(ScanRequest(case[0], case[1]), config, modality=modality)  # type: ignore[arg-type]


def isal_side() -> Callable[[Case], object]:
    from isal import igzip

    def read(case: Case) -> object:
        with igzip.open(case[0], "rb") as handle:
            return handle.read()

    return read


def measure(side: str, cases: list[Case], stock: Path, repeats: int) -> dict[str, object]:
    """Seconds of each case and peak memory above the process's own, in this process."""
    run = {"stock": lambda: stock_side(stock), "ours": lambda: our_side("CT"), "isal": isal_side}[side]()
    base = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    run(cases[0])
    seconds = []
    for _ in range(repeats):
        for case in cases:
            start = time.perf_counter()
            run(case)
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "memory_mb": max(0.0, peak - base), "readers": sorted(READERS_USED)}


def compare(args: argparse.Namespace, manifest: Path) -> None:
    """Run each side in a process of its own, alternating, and print the comparison."""
    sides = {side: name for side, name in SIDES.items() if side != "isal" or not args.dicom}
    results: dict[str, dict[str, list[float]]] = {side: {"seconds": [], "memory_mb": []} for side in sides}
    readers: set[str] = set()
    for _ in range(args.rounds):
        for side in sides:
            found = run_side(side, args, manifest)
            readers.update(found["readers"])
            if args.dicom and readers - {"ITKReader"}:
                sys.exit(f"MONAI's chain read with {sorted(readers)}, expected ITKReader: pip install itk")
            results[side]["seconds"] += found["seconds"]
            results[side]["memory_mb"].append(found["memory_mb"])
    show(args, results, readers)


def run_side(side: str, args: argparse.Namespace, manifest: Path) -> dict[str, Any]:
    """What ``measure`` finds in a new process."""
    command = [sys.executable, __file__, "--side", side, "--manifest", str(manifest), "--stock", str(args.stock)]
    command += ["--cases", str(args.cases), "--repeats", str(1 if side == "stock" else args.repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(args: argparse.Namespace, results: dict[str, dict[str, list[float]]], readers: set[str]) -> None:
    """The table, and the JSON line."""
    median = {side: statistics.median(found["seconds"]) for side, found in results.items()}
    memory = {side: max(found["memory_mb"]) for side, found in results.items()}
    kind = "DICOM series" if args.dicom else ".nii.gz"
    print(f"| {'one lesion, 512 x 512 x 200 ' + kind:<40} | seconds per case | memory above imports |")
    print(f"|{'-' * 42}|{'-' * 18}|{'-' * 22}|")
    for side in results:
        name = f"{SIDES[side]} ({', '.join(sorted(readers))})" if side == "stock" else SIDES[side]
        print(f"| {name:<40} | {median[side]:16.3f} | {memory[side]:17.0f} MB |")
    figures = {
        "ratio": round(median["stock"] / median["ours"], 2),
        **({} if args.dicom else {"ours_over_isal": round(median["ours"] / median["isal"], 3)}),
        **{f"{side}_seconds": round(median[side], 4) for side in results},
        **{f"{side}_memory_mb": round(memory[side]) for side in results},
        "stock_readers": sorted(readers),
        "cases": args.cases,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock", type=Path, required=True)
    parser.add_argument("--make-ct", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--dicom", action="store_true", help="series of slices instead of .nii.gz")
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.dicom and importlib.util.find_spec("itk") is None:
        parser.error("--dicom compares with MONAI's ITK reader, and itk is not installed: pip install itk")
    if args.side:
        print(json.dumps(measure(args.side, read_cases(args.manifest)[: args.cases], args.stock, args.repeats)))
    elif args.manifest:
        compare(args, args.manifest)
    elif args.make_ct:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(args.make_ct), folder, "--cases", str(args.cases)] + ["--dicom"] * args.dicom
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            compare(args, Path(folder) / "manifest.csv")
    else:
        parser.error("give --make-ct or --manifest")


if __name__ == "__main__":
    main()
