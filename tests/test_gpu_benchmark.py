"""The GPU benchmark can be run whole on a CPU, and a part that fails is a line of its table."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from shared_data import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu as module

        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def setting(gpu, tmp_path):
    return gpu.Setting(device="cpu", tiny=True, folder=tmp_path, cores=1)


def works(setting):
    from gpu_rows import Row

    return [Row("works", "yes", "yes", passed=True, figures={"card": "none"})]


def raises(setting):
    raise ValueError("a reason\nand more")


def dies(setting):
    os._exit(7)


def hangs(setting):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (setting.folder / "child").write_text(str(child.pid))
    time.sleep(600)


@pytest.mark.parametrize(
    ("work", "seconds", "says"),
    [
        (raises, 60, "ValueError: a reason"),
        (dies, 60, "its process ended with exit code 7"),
        (hangs, 2, "stopped after 2 s"),
        (works, 0, "not run: the time was up"),
    ],
)
def test_a_part_that_fails_is_a_row_and_the_others_run(gpu, setting, work, seconds, says):
    found = {
        name: gpu.run_part(gpu.Part(name, part, seconds), setting, seconds=seconds) for name, part in [("bad", work)]
    }
    found["good"] = gpu.run_part(gpu.Part("good", works, 60), setting, seconds=60)
    assert [(row.result, row.passed) for row in found["bad"]] == [(says, False)]
    assert [row.passed for row in found["good"]] == [True]
    if work is hangs:
        child = int((setting.folder / "child").read_text())
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    figures = gpu.summary(found, 1.0)
    assert (figures["missed"], figures["card"]) == (["bad"], "none")
    assert "MISSED" in gpu.table(found)


def test_exit_code_and_ratio_follow_the_rows(gpu, monkeypatch, capsys):
    def trained(ratio, *, passed):
        return lambda setting: [gpu.Row("against the stock chain", "", ">= 5", passed, {"ratio": ratio})]

    cases = gpu.Part("cases", works, 60)
    for parts, code, ratio in (
        ([trained(6.0, passed=True), trained(5.5, passed=True)], 0, 5.5),
        ([trained(6.0, passed=True), trained(4.0, passed=False)], 1, 4.0),
    ):
        numbered = [gpu.Part(f"training-{number}", part, 60) for number, part in enumerate(parts)]
        monkeypatch.setattr(gpu, "PARTS", (cases, *numbered))
        assert gpu.main(["--device", "cpu", "--tiny"]) == code
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (next(iter(last)), last["ratio"]) == ("ratio", ratio)


def test_whole_sizes_are_refused_on_a_cpu(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu"])
    assert "give --tiny too" in capsys.readouterr().err


def test_compiling_is_chosen_where_it_pays_back_within_the_training(gpu):
    from gpu_training import Alone

    eager = Alone("eager", "off", channels_last=True, step_seconds=0.02, first_seconds=0.1)
    graphs = Alone("graphs", "cuda_graphs", channels_last=True, step_seconds=0.01, first_seconds=5.1)
    for steps, best in ((400, eager), (600, graphs)):
        assert min((eager, graphs), key=lambda variant: variant.whole(steps)) is best


def run(*options):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--tiny", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(gpu):
    done = run()
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, figures["missed"]) == (0, []), done.stderr
    assert set(figures["parts"]) == {part.name for part in gpu.PARTS}
    assert figures["ratio"] is None
    rows = [row for part in figures["parts"].values() for row in part]
    assert sum(row["result"] == "skipped: --stock was not given" for row in rows) == 4


STOCK = """
import argparse, csv, json, torch
from torch.utils.data import DataLoader
resnet18 = lambda **_: torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(2), torch.nn.Flatten(), torch.nn.Linear(8, 1))
DenseNet121 = resnet18
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest")
    parser.add_argument("out", nargs="?")
    parser.parse_known_args()
    resnet18()
    globals()["resnet18"](), globals()["DenseNet121"]()
    print(json.dumps({"samples_per_second": 0.5, "cases_per_second": 0.5}))
"""


@pytest.mark.slow
def test_stock_scripts_are_run_when_they_are_given(tmp_path):
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    parts = ("--parts", "training-densenet121-48", "scoring", "--profile")
    done = run("--stock", script, "--stock-scoring", script, *parts)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["missed"] == [], done.stderr
    assert figures["ratio"] > 0
    assert "densenet121 at 8^3: where the time goes" in json.dumps(figures)
    assert "times its 0.50 cases per second (its network on the device too)" in json.dumps(figures)
