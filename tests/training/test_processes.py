"""Two processes, one training: the same batches, the same metrics, none of the cases twice."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit import Recorder, blobs, config
from torch import distributed, nn

from pipeline.config.training import Training
from pipeline.errors import UsageError
from pipeline.training.data import CasesDataModule, EpochBatches
from pipeline.training.fit import fit
from pipeline.training.processes import Processes, join, share_batch_norm


def test_processes_divide_each_batch_and_nothing_is_seen_twice():
    labels = torch.tensor([0.0, 1.0] * 21)
    whole = list(EpochBatches(labels, batch_size=16, seed=0, balanced=False))
    parts = [
        list(EpochBatches(labels, batch_size=16, seed=0, balanced=False, processes=Processes(rank, 2)))
        for rank in range(2)
    ]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for batch, one, two in zip(whole, *parts, strict=True):
        assert sorted(one + two) == sorted(batch)
        assert len(one) == len(two)


@pytest.mark.parametrize("cases", [7, 16, 33])
def test_every_validation_case_is_seen_once(monkeypatch, cases):
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen, batches = [], []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        loader = CasesDataModule(blobs(16), blobs(cases), config()).val_dataloader()
        found = [batch.cases.tolist() for batch in loader]
        assert all(found)
        seen += [case for batch in found for case in batch]
        batches.append(len(found))
    assert sorted(seen) == list(range(cases))
    assert batches[0] == batches[1]


def test_wrong_number_of_processes_is_refused(monkeypatch):
    with pytest.raises(UsageError, match=r"is 2, and 1 processes were started; use: torchrun --nnodes 1 --nproc"):
        join(Training(devices=2))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="32 cases cannot be divided among 3"):
        join(Training(devices=3))


def settings(**training):
    return config(max_epochs=4, schedule="constant", learning_rate=0.001, accelerator="cpu", **training)


def follow():
    """One process of two, under torchrun; the first writes what the tracker was told."""
    torch.set_num_threads(1)
    join(settings(devices=2).training)
    recorder = Recorder()
    out = Path(sys.argv[2])
    fit(blobs(64), blobs(31, seed=1), settings(devices=2), folder=out / "two", tracker=recorder)
    if os.environ["RANK"] == "0":
        (out / "steps.json").write_text(json.dumps(recorder.steps))


def test_two_processes_learn_as_one_does(tmp_path):
    """The curves of loss and metrics, epoch by epoch; sums in another order are all that differs."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--standalone",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run(
        [*command, __file__, "follow", str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = {int(step): values for step, values in json.loads((tmp_path / "steps.json").read_text()).items()}
    recorder = Recorder()
    fit(blobs(64), blobs(31, seed=1), settings(), folder=tmp_path / "one", tracker=recorder)
    one = recorder.steps
    assert list(one) == list(two)
    for name in ("train_loss", "validation_log_loss", "validation_auroc"):
        curves = [[steps[epoch][name] for epoch in sorted(steps)] for steps in (one, two)]
        print(name, *[[round(value, 4) for value in curve] for curve in curves])
        np.testing.assert_allclose(*curves, atol=0.01)


@pytest.fixture
def alone(monkeypatch):
    """A group of one process."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (100.0, 0.05), (1000.0, 0.05), (-1000.0, 10.0)])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shared_batch_normalisation_is_exact_where_the_mean_is_large(alone, mean, spread, axes):
    torch.manual_seed(0)
    make = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
    exact = make(3).double()
    nn.init.uniform_(exact.weight)
    nn.init.uniform_(exact.bias)
    (shared,) = share_batch_norm(nn.Sequential(copy.deepcopy(exact).float()), on_gpu=False)
    features = (mean + spread * torch.randn(8, 3, *[4] * axes)).requires_grad_()
    double = features.detach().double().requires_grad_()
    found, expected = shared(features), exact(double)
    torch.testing.assert_close(found.double(), expected, atol=0.003, rtol=0)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    torch.testing.assert_close(features.grad.double(), double.grad, atol=0.003 * double.grad.abs().max(), rtol=0)
    torch.testing.assert_close(shared.running_var.double(), exact.running_var, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(shared.running_mean.double(), exact.running_mean, rtol=1e-5, atol=1e-6)


def test_gpus_take_torchs_own_with_the_same_names_and_weights():
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shared = share_batch_norm(network, on_gpu=True)
    assert isinstance(shared[1], nn.SyncBatchNorm)
    after = shared.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_accumulated_batches_make_one_step(tmp_path):
    """Without batch statistics in the way, half batches accumulated are the whole batch."""
    recorder = Recorder()
    accumulated = config(max_epochs=2, patience=1, batch_size=4, accumulate_batches=2, schedule="one_cycle")
    fit(blobs(16), blobs(8), accumulated, folder=tmp_path, tracker=recorder)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4  # 16 cases in 2 epochs, 8 of them a step


if __name__ == "__main__" and sys.argv[1:2] == ["follow"]:
    follow()
