"""A training that is killed at any moment goes on to the weights that it would have had."""

import multiprocessing
import os
import random
import resource
import signal
import time
from contextlib import nullcontext

import pytest
import torch
from test_fit import blobs, config

from pipeline.errors import UnfinishedError
from pipeline.training.checkpoints import LAST, AtomicCheckpointIO
from pipeline.training.fit import fit
from pipeline.training.tracker import NullTracker

# A process that is forked from a clean one with everything imported starts at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["test_fit", "pipeline.training.fit"])


def train(folder, patience=5):
    """A training in which everything has a state: dropout, moving average, schedule, early stopping, augmentation."""
    torch.set_num_threads(1)
    settings = config(max_epochs=6, patience=patience, ema_decay=0.8, learning_rate=0.003)
    settings = settings.model_copy(
        update={
            "network": settings.network.model_copy(update={"dropout": 0.3}),
            "augmentation": settings.augmentation.model_copy(update={"flip_axes": (0, 1), "noise_std": 0.1}),
        }
    )
    fitted = fit(blobs(96), blobs(24, seed=1), settings, folder=folder, tracker=NullTracker())
    last = torch.load(folder / LAST, weights_only=True)
    optimizer = [value for state in last["optimizer_states"][0]["state"].values() for value in state.values()]
    weights = [*fitted.network.state_dict().values(), *last["current_model_state"].values(), *optimizer]
    return fitted, torch.cat([value.flatten().double() for value in weights])


def train_to_file(folder, patience=5):
    fitted, weights = train(folder, patience)
    history = [dict(epoch) for epoch in fitted.history]
    result = {"weights": weights, "best": fitted.best_epoch, "epochs": fitted.epochs, "history": history}
    torch.save(result, folder / "result.pt")


def run(folder, *, kill_after=None, patience=5):
    """Train in a process; kill it after so many seconds, if it lives that long."""
    folder.mkdir(exist_ok=True)
    process = PROCESSES.Process(target=train_to_file, args=(folder, patience))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nobody killed, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    run(tmp_path_factory.mktemp("warm"))  # starts the fork server
    start = time.monotonic()
    assert run(folder) == 0
    return torch.load(folder / "result.pt"), time.monotonic() - start


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.campaign)]
)
def test_killed_training_goes_on_to_the_same_weights(tmp_path, whole, kills):
    expected, seconds = whole
    moments = random.Random(0)
    differences, interrupted = [], 0
    while interrupted < kills:
        folder = tmp_path / str(len(differences))
        while run(folder, kill_after=moments.uniform(0.1, 1.0) * seconds) != 0:
            interrupted += 1
            if interrupted > 5 * kills:  # a machine that has become slow
                seconds *= 1.2
        result = torch.load(folder / "result.pt")
        assert (result["best"], result["epochs"]) == (expected["best"], expected["epochs"])
        assert result["history"] == expected["history"]
        differences.append(float((result["weights"] - expected["weights"]).abs().max()))
    print(f"{len(differences)} trainings, {interrupted} kills, largest difference of a weight {max(differences)}")
    assert interrupted >= kills
    assert max(differences) == 0


class KilledError(Exception):
    """The end of a training from outside."""


class KillingTracker(NullTracker):
    """Ends the training when an epoch's metrics come in, before its checkpoint is written or after."""

    def __init__(self, epoch):
        self.epoch, self.steps = epoch, []

    def metrics(self, values, *, step):
        self.steps.append(step)
        if step == self.epoch:
            raise KilledError


@pytest.mark.parametrize("patience", [1, 5])
def test_decision_to_stop_survives_the_kill(tmp_path, patience):
    fitted, weights = train(tmp_path / "whole", patience)
    stopped = tmp_path / "stopped"
    train(stopped, patience)
    again, same = train(stopped, patience)  # from the last checkpoint of a training that had ended
    assert (again.best_epoch, again.epochs, again.validation) == (fitted.best_epoch, fitted.epochs, fitted.validation)
    assert again.history == fitted.history
    assert torch.equal(same, weights)


def test_without_early_stopping_the_last_epoch_goes_on_too(tmp_path):
    settings = config(max_epochs=3, patience=2)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"early_stopping": None})})
    found = []
    for name, tracker in (("whole", NullTracker()), ("killed", KillingTracker(2))):
        with pytest.raises(KilledError) if name == "killed" else nullcontext():
            fit(blobs(24), blobs(8), settings, folder=tmp_path / name, tracker=tracker)
        fitted = fit(blobs(24), blobs(8), settings, folder=tmp_path / name, tracker=NullTracker())
        found.append(torch.cat([value.flatten().float() for value in fitted.network.state_dict().values()]))
    assert torch.equal(*found)


def test_epoch_of_the_kill_alone_is_trained_again(tmp_path):
    settings = config(max_epochs=4)
    first, second = KillingTracker(3), KillingTracker(None)
    with pytest.raises(KilledError):
        fit(blobs(24), blobs(8), settings, folder=tmp_path, tracker=first)
    fit(blobs(24), blobs(8), settings, folder=tmp_path, tracker=second)
    assert first.steps == [1, 2, 3]
    assert second.steps == [3, 4]


def write_checkpoints(folder, first):
    """Endless checkpoints, each one number above the last."""
    for number in range(first, 10**9):
        AtomicCheckpointIO().save_checkpoint(
            {"number": number, "weights": torch.full((200_000,), number)}, folder / LAST
        )


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.campaign)])
def test_killed_while_checkpointing_leaves_a_whole_checkpoint(tmp_path, kills):
    moments, number, half_written = random.Random(1), -1, 0
    for _ in range(kills):
        process = PROCESSES.Process(target=write_checkpoints, args=(tmp_path, number + 1))
        process.start()
        while number < 0 and not (tmp_path / LAST).exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = torch.load(tmp_path / LAST, weights_only=True)
        assert (found["weights"] == found["number"]).all()
        assert found["number"] >= number
        number = found["number"]
        half_written += len(list(tmp_path.glob(".*.tmp")))
        [path.unlink() for path in tmp_path.glob(".*.tmp")]
    print(f"{kills} kills, {half_written} of them in the middle of a file, checkpoint loadable after each")
    assert number >= 0


def test_full_disk_keeps_the_previous_checkpoint_and_says_so(tmp_path):
    """A limit on the size of files ends the write halfway, as a full disk does."""
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"weights": torch.ones(10)}, tmp_path / LAST)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UnfinishedError, match=r"last\.ckpt: the checkpoint could not be written .*--resume"):
            writer.save_checkpoint({"weights": torch.ones(1_000_000)}, tmp_path / LAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(torch.load(tmp_path / LAST, weights_only=True)["weights"], torch.ones(10))
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_training_on_a_full_disk_ends_with_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The disk fills up in epoch 3; with room again the training goes on to the same weights."""
    whole, weights = train(tmp_path / "whole")
    full = tmp_path / "full"
    save = torch.save

    def no_space(checkpoint, path):
        if checkpoint["epoch"] == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(checkpoint, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_space)
        with pytest.raises(UnfinishedError, match="No space left on device"):
            train(full)
    assert torch.load(full / LAST, weights_only=True)["epoch"] == 1
    again, same = train(full)
    assert torch.equal(same, weights)
    assert (again.best_epoch, again.epochs, again.validation) == (whole.best_epoch, whole.epochs, whole.validation)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_checkpoint_that_was_cut_is_one_line_with_the_way_on(tmp_path, name, kept):
    settings = config(max_epochs=2, patience=1)
    fit(blobs(16), blobs(8, seed=1), settings, folder=tmp_path, tracker=NullTracker())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UnfinishedError, match=rf"{name}: \d+ bytes that are no whole checkpoint; restore") as caught:
        fit(blobs(16), blobs(8, seed=1), settings, folder=tmp_path, tracker=NullTracker())
    assert "\n" not in str(caught.value)
