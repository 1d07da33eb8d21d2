"""Several networks of one training: at the same time in processes, or one after the other, with the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.experiment import Config
from pipeline.errors import UnfinishedError
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.networks import NetworkTask, fit_networks, networks_at_once
from pipeline.training.tracker import NullTracker


class Recorder:
    def __init__(self):
        self.steps = {}

    def metrics(self, values, *, step):
        self.steps.setdefault(step, {}).update(values)


def config(seed=0, **training):
    return Config.model_validate(
        {
            "name": "test",
            "seed": seed,
            "data": {"manifest": "none.csv", "modality": "CT", "label_source": "made up"},
            "preprocessing": {"dimensions": 2, "region": "image", "size": [28, 28], "spacing_mm": [1.0, 1.0]},
            "network": {"name": "compact", "width": 4},
            "training": {"max_epochs": 3, "batch_size": 8, "early_stopping": None, **training},
        }
    )


def tasks(folder, tracker_of=lambda _: NullTracker(), **training):
    """Two networks on overlapping halves of the same rows."""
    rng = np.random.default_rng(0)
    rows, labels = list(rng.random((24, 1, 28, 28), np.float32)), np.arange(24) % 2
    made = []
    for number, places in enumerate((range(16), range(8, 24))):
        images = ImageRows([rows[place] for place in places])
        cases = CaseTensors.from_arrays(images, labels[list(places)], [str(place) for place in places])
        of_network = config(seed=number, **training)
        made.append(NetworkTask(cases, None, of_network, folder / str(number), tracker_of(number)))
    return made


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_short_trainings_and_single_threads_start_no_process(tmp_path, two_threads):
    assert networks_at_once(tasks(tmp_path)) == 1
    assert networks_at_once(tasks(tmp_path, max_epochs=4000)) == 2
    assert networks_at_once(tasks(tmp_path, max_epochs=4000, networks_at_once=1)) == 1
    assert networks_at_once(tasks(tmp_path, networks_at_once=5)) == 2
    torch.set_num_threads(1)
    assert networks_at_once(tasks(tmp_path, max_epochs=4000)) == 1


def test_rows_keep_their_places_when_they_share_an_array():
    rows = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)
    chosen = ImageRows(rows, [4, 1, 5])
    np.testing.assert_array_equal(chosen[torch.tensor([2, 0])].numpy(), rows[[5, 4]])
    np.testing.assert_array_equal(np.stack(chosen.rows), rows[[4, 1, 5]])


@pytest.mark.slow
def test_networks_fitted_at_once_are_those_fitted_one_after_the_other(tmp_path, two_threads):
    recorders = [Recorder(), Recorder()]
    at_once = fit_networks(tasks(tmp_path / "once", recorders.__getitem__, networks_at_once=2))
    torch.set_num_threads(1)
    in_turn = fit_networks(tasks(tmp_path / "turn", networks_at_once=1))
    for one, other in zip(at_once, in_turn, strict=True):
        assert one.history == other.history
        for name, weight in one.network.state_dict().items():
            assert torch.equal(weight, other.network.state_dict()[name]), name
    assert [sorted(recorder.steps) for recorder in recorders] == [[1, 2, 3]] * 2
    assert recorders[0].steps[3]["train_loss"] == at_once[0].history[2]["train_loss"]
    assert not torch.equal(*(next(iter(fitted.network.parameters())) for fitted in at_once))


@pytest.mark.slow
def test_a_process_that_dies_is_said_and_the_checkpoints_stay(tmp_path, two_threads):
    furthest = {}

    class Killer:
        def __init__(self, number):
            self.number = number

        def metrics(self, values, *, step):
            furthest[self.number] = step
            if min(furthest.get(0, 0), furthest.get(1, 0)) < 2:  # both have a checkpoint from the second epoch on
                return
            for process in Path("/proc").glob("[0-9]*/stat"):
                try:
                    pid, parent = int(process.parent.name), int(process.read_text().rsplit(")", 1)[1].split()[1])
                    command = (process.parent / "cmdline").read_bytes()
                except (OSError, ValueError):
                    continue
                if parent == os.getpid() and b"popen_loky" in command:
                    os.kill(pid, signal.SIGKILL)

    with pytest.raises(UnfinishedError, match="networks_at_once to fewer, and continue with --resume"):
        fit_networks(tasks(tmp_path, Killer, networks_at_once=2, max_epochs=5000))
    assert (tmp_path / "0" / "last.ckpt").exists()


PARENT = """
import sys
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(2)
from pathlib import Path
from test_networks_at_once import tasks
from pipeline.training.networks import fit_networks
fit_networks(tasks(Path({folder!r}), networks_at_once=2, max_epochs=100000))  # not below if __name__ == "__main__"
"""


@pytest.mark.slow
def test_processes_end_with_the_training_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PARENT.format(path=[str(Path(__file__).parent), *sys.path], folder=str(tmp_path / "run")))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / "1" / "last.ckpt"
    try:
        for _ in range(600):
            if checkpoint.exists():
                break
            assert parent.poll() is None
            time.sleep(0.2)
        assert checkpoint.exists()
    finally:
        parent.kill()
        parent.wait()
    time.sleep(3)
    written = checkpoint.stat().st_mtime_ns
    time.sleep(3)
    assert checkpoint.stat().st_mtime_ns == written
