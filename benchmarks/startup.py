#!/usr/bin/env python3
"""What a person waits for: commands on little work, from Enter to the end, beside ``import torch`` and a stock script.

    python benchmarks/startup.py [--stock stock_scoring.py] [--manifest FILE] [--cases 16] [--rounds 3]

A round runs each of these in a process of its own, one after the other: ``import torch``; ``malignancy score`` on one
CT without tracking, with a tracking store that is there, and with one that must be made; ``malignancy check`` on it;
loading the MLflow model and predicting it; ``malignancy score`` on ``--cases`` CTs, and the stock script on the same.
The CTs are made: 512 x 512 x 120 voxels of int16, gzip. ``--manifest`` names others, with lesion centres; its first row
is the one scan. The network is DenseNet121 at 64 voxels of 1 mm, with weights drawn from a seed.

Wall time and the processor time of all processes are given, each as the median over the rounds, and as a multiple of
the same round's ``import torch``: on a shared machine only ratios mean anything. Then come the shares of one scan, in
processor seconds, of the process that asks and of the worker, which run side by side. The last line is JSON; ``ratio``
is the wall time of one untracked scan over that of ``import torch``. Linux only: it adopts orphaned processes to add up
their processor time.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE, SPACING_MM = 64, 1.0
SHAPE, VOXEL_MM = (512, 512, 120), (0.7, 0.7, 2.0)
VOLUMES = 4  # different ones; more rows repeat them
PR_SET_CHILD_SUBREAPER = 36

PYFUNC = """
import sys, mlflow, pandas as pd
row = pd.read_csv(sys.argv[2], dtype={"case_id": str, "patient_id": str}).head(1)
row = row.astype({name: float for name in row if name.startswith("center")})
print(mlflow.pyfunc.load_model(sys.argv[1], model_config={"root": sys.argv[3]}).predict(row)["probability"])
"""


@dataclass(frozen=True)
class Time:
    """Seconds on the clock, and of the processor over all processes of the command."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock", type=Path, help="a script that takes a manifest and a file to write")
    parser.add_argument("--manifest", type=Path, help="of CTs with lesion centres, instead of made ones")
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shares", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.shares:
        side, model, manifest, out = args.shares
        print(json.dumps((shares_of_worker if side == "worker" else shares_of_parent)(model, manifest, out)))
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        source = args.manifest.resolve() if args.manifest else make_scans(folder / "scans", args.cases)
        one, many = beside(source, "one", 1), beside(source, "many", args.cases)
        try:
            rounds = [one_round(folder, one, many, args.stock, number) for number in range(args.rounds)]
            shares = {side: ask_shares(folder, one, side) for side in ("parent", "worker")}
        finally:
            one.unlink()
            many.unlink()
    report(rounds, shares, args.cases)


def make_model(folder: Path) -> None:
    """A model directory, and the same as an MLflow model, in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from random_model import write_random_model\n"
        "from pipeline.config.training import Network; import pipeline.tracking.registry as registry\n"
        f"folder = write_random_model(Path(sys.argv[1]), Network(name='densenet121'), side={SIZE})\n"
        "import mlflow\n"
        "mlflow.pyfunc.save_model(sys.argv[2], python_model=str(Path(registry.__file__).with_name('pyfunc.py')),\n"
        "    artifacts={'model_directory': str(folder)}, pip_requirements=[], model_config={'root': '.'})\n"
    )
    run([sys.executable, "-c", code, str(folder / "model"), str(folder / "pyfunc")], folder)


def make_scans(folder: Path, cases: int) -> Path:
    """CTs of noise with a bright ball each, and their manifest."""
    import nibabel as nib
    import numpy as np

    folder.mkdir()
    nib.openers.Opener.default_compresslevel = 1
    centre = tuple(side // 2 for side in SHAPE)
    for number in range(VOLUMES):
        rng = np.random.default_rng(number)
        plane = rng.normal(-850, 22, (*SHAPE[:2], 16))
        voxels = plane[..., rng.integers(16, size=SHAPE[2])].astype(np.int16)
        ball = tuple(slice(middle - 8, middle + 8) for middle in centre)
        voxels[ball] += 880
        image = nib.Nifti1Image(voxels, np.diag([*VOXEL_MM, 1.0]))
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"{number}.nii.gz")
    middle = [place * mm for place, mm in zip(centre, VOXEL_MM, strict=True)]
    with open(folder / "manifest.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["case_id", "image", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system"])
        rows.writerows([f"ct{number}", f"{number % VOLUMES}.nii.gz", *middle, "RAS"] for number in range(cases))
    return folder / "manifest.csv"


def beside(manifest: Path, name: str, rows: int) -> Path:
    """The first rows of a manifest, as another in the same folder: paths in it are relative."""
    path = manifest.with_name(f"startup-{name}-{os.getpid()}.csv")
    path.write_text("".join(f"{line}\n" for line in manifest.read_text().splitlines()[: rows + 1]))
    return path


def one_round(folder: Path, one: Path, many: Path, stock: Path | None, number: int) -> dict[str, Time]:
    """Each command once; a command's tracking store lies in the folder that it runs in."""
    command, model = [sys.executable, "-m", "pipeline"], str(folder / "model")
    kept, fresh = folder / "store", folder / f"store-{number}"
    kept.mkdir(exist_ok=True)
    fresh.mkdir()
    if number == 0:  # makes the store that later runs find
        run([*command, "score", model, str(one), "--out", "first"], kept)

    def score(manifest: Path, where: Path, *options: str) -> Time:
        return run([*command, "score", model, str(manifest), "--out", f"out-{time.monotonic_ns()}", *options], where)

    times = {
        "import torch": run([sys.executable, "-c", "import torch"], folder),
        "score, one CT, not tracked": score(one, folder, "--no-track"),
        "score, one CT, tracked": score(one, kept),
        "score, one CT, new tracking store": score(one, fresh),
        "check, one CT": run([*command, "check", str(one)], folder),
        "check --model, one CT": run([*command, "check", str(one), "--model", model], folder),
        "MLflow model, one CT": run(
            [sys.executable, "-c", PYFUNC, str(folder / "pyfunc"), str(one), str(one.parent)], folder
        ),
        "score, all CTs, not tracked": score(many, folder, "--no-track"),
    }
    if stock:
        line = [sys.executable, str(stock.resolve()), str(many), str(folder / "stock.csv")]
        options = ["--workers", str(len(os.sched_getaffinity(0))), "--roi", str(SIZE), "--spacing", str(SPACING_MM)]
        times["stock script, all CTs"] = run([*line, *options], folder)
    return times


def run(command: Sequence[str], where: Path) -> Time:
    """Run a command to the end of all processes that it started."""
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=where, env=environment | {"PYTHONPATH": path}, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            output.seek(0)
            sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{output.read().decode(errors='replace')}")
    cpu = usage.ru_utime + usage.ru_stime
    try:
        while True:  # the server of the workers ends after the command, and is ours then
            *_, usage = os.wait3(0)
            cpu += usage.ru_utime + usage.ru_stime
    except ChildProcessError:
        return Time(wall, cpu)


def ask_shares(folder: Path, one: Path, side: str) -> dict[str, float]:
    """The shares of one side, measured in a process of its own."""
    out = folder / f"shares-{side}"
    out.mkdir()
    line = [sys.executable, __file__, "--shares", side, str(folder / "model"), str(one), str(out)]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        line, cwd=out, env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


class Shares:
    """Processor seconds of this process by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = {"interpreter and this script": time.process_time()}

    @contextmanager
    def share(self, name: str) -> Iterator[None]:
        """Count what is done inside under a name."""
        before = time.process_time()
        yield
        self.seconds[name] = time.process_time() - before


def shares_of_worker(model: str, manifest: str, _out: str) -> dict[str, float]:
    """What a worker does for one scan, one after the other."""
    shares = Shares()
    with shares.share("imports"):
        import pipeline.scoring.engines.worker_preload  # noqa: F401
    from pipeline.cases.inputs import read_inputs
    from pipeline.scoring.engines.workers import ScorerSetup
    from pipeline.scoring.golden import golden_drift

    setup = ScorerSetup((Path(model),))
    with shares.share("model"):
        scorer = setup.build(device="cpu")
    with shares.share("golden scans, before and after"):
        for _ in range(2):
            golden_drift(scorer, setup.folders)
    (case,) = read_inputs(manifest).cases()
    with shares.share("reading and preprocessing"):
        prepared = scorer.prepare(case)
    with shares.share("network"):
        scorer.score([prepared])
    return shares.seconds


def shares_of_parent(model: str, manifest: str, out: str) -> dict[str, float]:
    """What the command does itself, beside its workers; the rows are those of a scan that is not there."""
    shares = Shares()
    with shares.share("imports"):
        import pipeline.cli
        import pipeline.jobs.score  # noqa: F401
    from pipeline.cases.inputs import read_inputs
    from pipeline.codes import Code
    from pipeline.scoring.ensemble import Ensemble
    from pipeline.scoring.model_verification import verify_model
    from pipeline.scoring.rows import ScoreTables, refusal
    from pipeline.scoring.sink import RunHeader, Sink
    from pipeline.tracking.runs import open_run
    from pipeline.tracking.store import Tracking, load_mlflow, open_store

    with shares.share("model.json and digests"):
        models = Ensemble.of([verify_model(Path(model))])
        identity = models.identity("eager")
    with shares.share("input"):
        inputs = read_inputs(manifest)
        (case,) = inputs.cases()
    with shares.share("sink"):
        sink = Sink(Path(out), RunHeader(identity, 0, inputs.source, models.threshold), ScoreTables())
        sink.append(refusal(case, identity, status="rejected", code=Code.E_NOT_FOUND, reason="none"))
        sink.commit()
        sink.finish()
    with shares.share("tracking: imports (while workers score)"):
        load_mlflow()
    with shares.share("tracking: a new store"):
        open_store(Tracking())
    with shares.share("tracking: the run"), open_run(Tracking(), name="startup", tags={}) as tracked:
        tracked.metrics({"cases": 1.0})
    return shares.seconds


def report(rounds: Sequence[Mapping[str, Time]], shares: Mapping[str, Mapping[str, float]], cases: int) -> None:
    """Print the table, the shares and the line of JSON."""
    torch = "import torch"

    def median(value: Callable[[Mapping[str, Time]], float]) -> float:
        return statistics.median(value(times) for times in rounds)

    print(f"{'':36} {'wall s':>8} {'/ torch':>8} {'cpu s':>8} {'/ torch':>8}   ({len(rounds)} rounds, {cases} CTs)")
    ratios = {}
    for name in rounds[0]:
        ratios[name] = median(lambda times, name=name: times[name].wall / times[torch].wall)  # type: ignore[misc]
        cpu_ratio = median(lambda times, name=name: times[name].cpu / times[torch].cpu)  # type: ignore[misc]
        wall = median(lambda times, name=name: times[name].wall)  # type: ignore[misc]
        cpu = median(lambda times, name=name: times[name].cpu)  # type: ignore[misc]
        print(f"{name:36} {wall:8.2f} {ratios[name]:8.2f} {cpu:8.2f} {cpu_ratio:8.2f}")
    figures = {"ratio": round(ratios["score, one CT, not tracked"], 2)}
    if "stock script, all CTs" in rounds[0]:
        gain = median(lambda times: times["stock script, all CTs"].wall / times["score, all CTs, not tracked"].wall)
        print(f"{cases} CTs, start-up included: {gain:.2f} times as fast as the stock script")
        figures["times_as_fast_as_stock"] = round(gain, 2)
    for side, seconds in shares.items():
        print(f"shares of the {side}, processor seconds: " + ", ".join(f"{key} {s:.2f}" for key, s in seconds.items()))
    figures |= {name: round(ratio, 2) for name, ratio in ratios.items() if name != torch}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
