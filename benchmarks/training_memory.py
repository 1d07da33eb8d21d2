"""Memory of training on many cached cases against few: summed anonymous pages, mapped cache pages not counted.

    python benchmarks/training_memory.py [--many 20000] [--few 1000] [--side 28] [--folder FOLDER]

Each side is a process of its own that takes every input from the cache on disk, as a second run does, and trains two
epochs (every input is seen). Inputs are noise. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.cases.cache import StoredInputs, look
from pipeline.cases.case import Case
from pipeline.cases.prepare import prepare_cases
from pipeline.config.experiment import Config
from pipeline.config.inputs import InputCache
from pipeline.imaging.image import ScanFacts
from pipeline.imaging.preprocess import ModelInput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--side", type=int, default=28, help="voxels of each side of an input")
    parser.add_argument("--folder", type=Path, default=None, help="where the inputs go for the time being")
    parser.add_argument("--train", type=int, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(args.folder, args.train, args.side)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_inputs(Path(folder), args.many, args.side)
        sides = {}
        for count in (args.few, args.many):
            command = [sys.executable, __file__, "--train", str(count), "--side", str(args.side), "--folder", folder]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            sides[count] = json.loads(answer.stdout.splitlines()[-1])
    print("cases    anonymous MB    mapped MB    seconds to take them from the cache")
    for count, side in sides.items():
        print(f"{count:<8} {side['anonymous_mb']:<15.0f} {side['mapped_mb']:<12.0f} {side['seconds']:.1f}")
    ratio = sides[args.many]["anonymous_mb"] / sides[args.few]["anonymous_mb"]
    print(json.dumps({"ratio": round(ratio, 3), **{str(count): side for count, side in sides.items()}}))


def cases(folder: Path, count: int) -> list[Case]:
    return [Case(str(number), f"{number}.nii", folder / f"{number}.nii", label=number % 2) for number in range(count)]


def config(side: int) -> Config:
    return Config.model_validate(
        {
            "name": "memory",
            "data": {"manifest": "none.csv", "modality": "CT", "label_source": "noise"},
            "preprocessing": {"region": "image", "size": [side] * 3, "spacing_mm": None},
            "augmentation": {"flip_axes": [0, 1, 2]},
            "network": {"name": "compact", "width": 4},
            "training": {"max_epochs": 2, "early_stopping": {"patience": 1}, "accelerator": "cpu"},
        }
    )


def write_inputs(folder: Path, count: int, side: int) -> None:
    """Entries as the pipeline would have stored them, of scans that are empty files."""
    stored, rng = StoredInputs(InputCache(folder=folder / "cache", max_gb=1000)), np.random.default_rng(0)
    for case in cases(folder, count):
        case.path.touch()
        voxels = rng.random((1, side, side, side), np.float32)
        found = ModelInput(voxels, (), {"share_inside": 1.0}, ScanFacts("", (side,) * 3, (1.0,) * 3, "RAS", "CT"))
        place = stored.place(case, config(side).preprocessing, modality="CT")
        stored.keep(found, place, look(case), case)


def train(folder: Path, count: int, side: int) -> dict[str, float]:
    from pipeline.training.data import CaseTensors, ImageRows
    from pipeline.training.fit import fit
    from pipeline.training.tracker import NullTracker

    settings, wanted = config(side), cases(folder, count)
    start = time.perf_counter()
    stored = StoredInputs(InputCache(folder=folder / "cache", max_gb=1000))
    found = [
        outcome
        for _, outcome in prepare_cases(wanted, settings.preprocessing, modality="CT", root=folder, stored=stored)
    ]
    seconds = time.perf_counter() - start
    tensors = CaseTensors.from_arrays(
        ImageRows([each.voxels for each in found]), [case.label for case in wanted], [case.case_id for case in wanted]
    )
    few = CaseTensors.from_arrays(
        ImageRows([each.voxels for each in found[:64]]), [0, 1] * 32, list(map(str, range(64)))
    )
    with tempfile.TemporaryDirectory() as checkpoints:
        fit(tensors, few, settings, folder=Path(checkpoints), tracker=NullTracker())
    pages = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    anonymous, resident = (int(pages[name].split()[0]) / 1024 for name in ("Anonymous", "Rss"))
    return {"anonymous_mb": anonymous, "mapped_mb": resident - anonymous, "seconds": seconds}


if __name__ == "__main__":
    main()
