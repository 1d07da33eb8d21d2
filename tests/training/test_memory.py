"""A batch that the device's memory does not hold ends in one line that says which one does, and loses nothing."""

import pytest
import torch
from test_fit import blobs, config

from pipeline.errors import UnfinishedError
from pipeline.models.compact import CompactCNN
from pipeline.training.checkpoints import LAST
from pipeline.training.fit import fit
from pipeline.training.memory import largest_fitting
from pipeline.training.tracker import NullTracker


def memory_for(monkeypatch, count):
    """A device whose memory holds ``count`` cases while it trains."""
    forward = CompactCNN.forward

    def within_memory(network, images):
        if network.training and len(images) > count:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(network, images)

    monkeypatch.setattr(CompactCNN, "forward", within_memory)


def train(folder, **training):
    return fit(blobs(32), blobs(8, seed=1), config(**training), folder=folder, tracker=NullTracker())


@pytest.mark.parametrize(("holds", "fits", "batches"), [(5, 4, 2), (3, 2, 4)])
def test_the_error_names_a_batch_that_fits_and_as_many_cases_a_step(tmp_path, monkeypatch, holds, fits, batches):
    memory_for(monkeypatch, holds)
    expected = rf"8 cases do not fit .*, {fits} do: .*batch_size={fits} training.accumulate_batches={batches} "
    with pytest.raises(UnfinishedError, match=expected) as caught:
        train(tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None  # what filled the memory is not kept by its error
    train(tmp_path / "again", batch_size=fits, accumulate_batches=batches)


def test_a_device_that_holds_no_two_cases_is_said(tmp_path, monkeypatch):
    memory_for(monkeypatch, 1)
    with pytest.raises(UnfinishedError, match="8 cases do not fit the device's memory, nor do 2; choose a smaller"):
        train(tmp_path)


def test_a_training_that_ran_out_of_memory_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", max_epochs=3, patience=2)
    seen = []
    forward = CompactCNN.forward

    def full_in_the_second_epoch(network, images):
        seen.append(network.training and len(images) == 8)
        if sum(seen) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, images)

    with monkeypatch.context() as patched:
        patched.setattr(CompactCNN, "forward", full_in_the_second_epoch)
        with pytest.raises(UnfinishedError, match=r"last whole epoch is kept: .*continue with --resume"):
            train(tmp_path / "cut", max_epochs=3, patience=2)
    assert (tmp_path / "cut" / LAST).exists()
    resumed = train(tmp_path / "cut", max_epochs=3, patience=2)
    for one, other in zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("holds", "expected"), [(50, 32), (31, 16), (2, 2), (1, None)])
def test_halves_are_tried_until_one_fits(holds, expected):
    tried = []

    def step(size):
        tried.append(size)
        if size > holds:
            raise torch.OutOfMemoryError("full")

    assert largest_fitting(step, below=64) == expected
    assert tried == [size for size in (32, 16, 8, 4, 2) if size >= (expected or 2)]


def test_another_error_of_a_trial_is_not_taken_for_a_full_memory():
    def step(size):
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        largest_fitting(step, below=8)
