"""``kill -9`` of the driver or of a worker at random moments: no row is lost, none repeated, none another."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from tiny_models import write_manifest, write_model, write_scans

SCANS = 300
# Every run is a process of its own, forked from one that has imported everything: most of a short run would be imports,
# and most kills would meet nothing else. The server that forks the workers is shared for the same reason, and outlives
# its drivers. Parts are small, so that kills fall between commits and within them.
DRIVERS = """
import json, os, sys
from multiprocessing import forkserver
from pipeline.cli import run
from pipeline.jobs import score
from pipeline.scoring import sink
from pipeline.scoring.engines import worker_process, worker_server
sink._PART_ROWS = 20
worker_server.context()
forkserver.ensure_running()
forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
for line in sys.stdin:
    driver = os.fork()
    if driver == 0:
        os.dup2(2, 1)
        os._exit(run(json.loads(line)))
    print(driver, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]), flush=True)
"""


# A cluster that outlives the drivers, as clusters do; of more processors than there are, so that eight actors start.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
CLUSTER = """
import sys, ray
print(ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False).address_info["address"], flush=True)
sys.stdin.read()
"""


class Drivers:
    """Runs the command in one fresh process after the other."""

    def __init__(self, errors, cluster: subprocess.Popen | None = None) -> None:
        self._cluster = cluster
        address = {"RAY_ADDRESS": cluster.stdout.readline().decode().strip()} if cluster else {}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", DRIVERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | TOKEN | address,
        )

    def start(self, *arguments: str) -> psutil.Process:
        """Start a driver."""
        self._parent.stdin.write(json.dumps(arguments).encode() + b"\n")
        self._parent.stdin.flush()
        return psutil.Process(int(self._parent.stdout.readline()))

    def exit_code(self, *, within: float | None = None) -> int | None:
        """Of the driver, when it ends within so many seconds; None when it does not."""
        ready, _, _ = select.select([self._parent.stdout], [], [], within)
        return int(self._parent.stdout.readline()) if ready else None

    def workers(self) -> list[psutil.Process]:
        """The scoring processes, whoever forked them, and Ray's actors."""
        roots = [self._parent, self._cluster] if self._cluster else [self._parent]
        below = [each for root in roots for each in psutil.Process(root.pid).children(recursive=True)]
        return [each for each in below if _is_worker(each)]

    def close(self) -> None:
        """End the parent, and with it the server that forks workers."""
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait()
        if self._cluster:
            self._cluster.stdin.close()
            self._cluster.wait()


def _is_worker(process: psutil.Process) -> bool:
    """Whether it was forked by a server or is an actor; a server has a worker's command line and a driver above."""
    with contextlib.suppress(psutil.Error):
        if process.name().startswith("ray::"):
            return "_ScoringActor" in str(process.cmdline())
        return all("multiprocessing.forkserver" in str(each.cmdline()) for each in (process, process.parent()))
    return False


@dataclass
class Campaign:
    """What was killed and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    rounds: int = 0
    largest_change: float = 0.0
    largest_logit_change: float = 0.0

    def describe(self) -> str:
        killed = ", ".join(f"{self.kills[name]} {name}s" for name in sorted(self.kills))
        return (
            f"{self.kills.total()} kills ({killed}) in {self.rounds} outputs: rows lost 0, repeated 0, largest change "
            f"of a probability {self.largest_change:.1e}, of a logit {self.largest_logit_change:.1e}; "
            f"exit codes {dict(self.exits)}"
        )


@pytest.fixture
def engine():
    return "local"


@pytest.fixture
def scans(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    write_scans(tmp_path / "scans", SCANS)
    write_manifest(tmp_path / "scans")
    with (tmp_path / "errors.txt").open("wb") as errors:
        cluster = None
        if engine == "ray":
            pytest.importorskip("ray", reason="the extra [ray] is not installed")
            cluster = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | TOKEN,
            )
        drivers = Drivers(errors, cluster)
        yield drivers
        drivers.close()


def arguments(out, *options):
    return ["score", "model", "scans/manifest.csv", "--out", out, "--no-track", "--batch-size", "3", *options]


def one_round(drivers: Drivers, campaign: Campaign, options, rng, *, seconds: float) -> None:
    """Run into one output until the command ends by itself, killing it or a worker at random moments on the way."""
    line = arguments("killed", *options)
    driver, code = drivers.start(*line), None
    while code != 0:
        code = drivers.exit_code(within=rng.uniform(0, seconds))
        if code is None:
            workers = drivers.workers()
            victim = "worker" if workers and rng.random() < 0.5 else "driver"
            with contextlib.suppress(psutil.NoSuchProcess):  # it may just have come to its own end
                (workers[rng.integers(len(workers))] if victim == "worker" else driver).kill()
                campaign.kills[victim] += 1
            if victim == "worker":
                continue
            code = drivers.exit_code()
        campaign.exits[code] += 1
        assert code in (0, 1, -9), Path("errors.txt").read_text()  # 1: a case whose worker was killed twice is failed
        if code != 0:
            driver = drivers.start(*line)
    campaign.rounds += 1


def compare(out: str, campaign: Campaign) -> None:
    """Equal but for clocks, and for the last bits that the make-up of a batch decides."""
    found, expected = (pd.read_parquet(f"{folder}/scores.parquet") for folder in (out, "undisturbed"))
    drop = ["seconds", "scored_at", "probability", "logit"]
    pd.testing.assert_frame_equal(found.drop(columns=drop), expected.drop(columns=drop))
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-6)
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)
    change = float((found["probability"] - expected["probability"]).abs().max())
    campaign.largest_change = max(campaign.largest_change, change)
    change = float((found["logit"] - expected["logit"]).abs().max())
    campaign.largest_logit_change = max(campaign.largest_logit_change, change)
    assert not list(Path(out).rglob("*.tmp"))


def disturb(drivers: Drivers, *options: str, kills: int, seed: int) -> Campaign:
    """Rounds of kills until there were enough, each compared with an undisturbed run."""
    rng, campaign = np.random.default_rng(seed), Campaign()
    seconds = 0.0
    for out in ("warm-up", "undisturbed"):  # the first waits for imports
        start = time.perf_counter()
        drivers.start(*arguments(out, *options))
        assert drivers.exit_code() == 0, Path("errors.txt").read_text()
        seconds = time.perf_counter() - start
    compare("warm-up", campaign)
    while campaign.kills.total() < kills:
        # A run on Ray is mostly the start of its actors: kills within half of one would never let it go on.
        one_round(drivers, campaign, options, rng, seconds=seconds if "ray" in options else seconds / 2)
        compare("killed", campaign)
        shutil.rmtree("killed")
    print(f"\n{' '.join(options)}: {campaign.describe()}", flush=True)
    return campaign


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(scans):
    assert disturb(scans, "--workers", "2", kills=6, seed=0).kills.total() >= 6


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("engine", "workers", "kills"),
    # On Ray each run starts actors, which import everything anew: hence fewer.
    [("local", 2, 60), ("local", 8, 60), ("local", 1, 60), ("ray", 2, 10), ("ray", 8, 5), ("ray", 1, 8)],
)
def test_two_hundred_kills_lose_and_repeat_no_row(scans, engine, workers, kills):
    disturb(scans, "--engine", engine, "--workers", str(workers), kills=kills, seed=workers)
