#!/usr/bin/env python3
"""How long a training takes to its first optimiser step, on a cold and on a warm cache of inputs.

    python benchmarks/first_step.py configs/demo.yaml [section.key=value ...]

Each run is ``malignancy train`` in a process of its own, stopped where the first training step begins. The clock
starts when its heavy imports (torch, MONAI, Lightning, MLflow) are done; their time is printed apart. Store, runs and
cache lie in a temporary folder. Prints a line a run and last one JSON line; ``ratio`` is cold over warm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STOPPED = 42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.run:
        run(args.config, args.overrides)
        return
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        apart = [
            f"output={folder}/runs",
            f"tracking.uri=sqlite:///{folder}/mlflow.db",
            f"tracking.artifacts={folder}/artifacts",
            f"data.cache.folder={folder}/cache",
        ]
        for cache in ("cold", "warm"):
            seconds[cache] = first_step(args.config, [*args.overrides, *apart])
            print(f"{cache} cache: imports {seconds[cache][0]:.1f} s, then {seconds[cache][1]:.1f} s to the first step")
    cold, warm = (seconds[cache][1] for cache in ("cold", "warm"))
    print(json.dumps({"ratio": round(cold / warm, 2), "cold_seconds": round(cold, 2), "warm_seconds": round(warm, 2)}))


def first_step(config: Path, overrides: list[str]) -> tuple[float, float]:
    """Seconds of imports, and from there to the first step, of a new process."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, __file__, "--run", config, *overrides], env=environment, stdout=subprocess.PIPE, check=False
    )
    if done.returncode != STOPPED:
        raise SystemExit(f"the training ended with {done.returncode} before its first step")
    imports, seconds = json.loads(done.stdout.splitlines()[-1])
    return imports, seconds


def run(config: Path, overrides: list[str]) -> None:
    """Train as the command does, up to the first step."""
    begun = time.perf_counter()
    import mlflow  # noqa: F401
    import monai.transforms  # noqa: F401

    from pipeline.jobs.train import train
    from pipeline.training.module import Classifier

    imported = time.perf_counter()

    def stop(*_: object) -> None:
        print(json.dumps([imported - begun, time.perf_counter() - imported]), flush=True)
        os._exit(STOPPED)

    Classifier.training_step = stop
    train(config, overrides)


if __name__ == "__main__":
    main()
