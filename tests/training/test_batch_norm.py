"""Means and variances of batch normalisation under averaged weights."""

import pytest
import torch
from test_fit import blobs, config
from torch import nn

from pipeline.models.networks import build_network, predict_logits
from pipeline.training.batch_norm import estimate_batch_norm
from pipeline.training.fit import fit
from pipeline.training.processes import share_batch_norm
from pipeline.training.tracker import NullTracker

AVERAGED = {"early_stopping": None, "ema_decay": 0.9}


def first_statistics(network):
    return network.stem[1].running_mean, network.stem[1].running_var


def made(**network):
    torch.manual_seed(0)
    return build_network(config().network.model_copy(update=network), dimensions=2)


@pytest.mark.parametrize("batch_size", [8, 12, 24])
def test_statistics_are_those_of_all_training_images(batch_size):
    network, train = made(), blobs(24)
    estimate_batch_norm(network, train, batch_size=batch_size, seed=0)
    features = network.stem[0](train.images).detach().double()
    mean, variance = first_statistics(network)
    torch.testing.assert_close(mean.double(), features.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-5)
    # Of batches, whose own means differ a little; of a single batch it is exact.
    expected = features.transpose(0, 1).flatten(1).var(dim=1)
    torch.testing.assert_close(variance.double(), expected, atol=1e-5, rtol=1e-5 if batch_size == 24 else 0.05)


def test_more_batches_than_are_needed_are_not_looked_at(monkeypatch):
    monkeypatch.setattr("pipeline.training.batch_norm._MOST_BATCHES", 2)
    network, train = made(), blobs(24)
    estimate_batch_norm(network, train, batch_size=8, seed=0)
    assert int(network.stem[1].num_batches_tracked) == 2


def test_all_else_of_the_network_stays():
    network, train = made(dropout=0.5), blobs(24)
    network.stem[1].weight.requires_grad = False  # a frozen stage keeps what it was loaded with
    weights = {name: value.clone() for name, value in network.named_parameters()}
    frozen = [value.clone() for value in first_statistics(network)]
    momenta = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    estimate_batch_norm(network, train, batch_size=8, seed=0)
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert all(torch.equal(*pair) for pair in zip(first_statistics(network), frozen, strict=True))
    assert [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)] == momenta
    assert not any(module.training for module in network.modules())
    assert network.stages[0].body[1].num_batches_tracked == 3


@pytest.mark.parametrize("on_gpu", [False, True])
def test_each_of_several_processes_estimates_by_itself(on_gpu):
    alone, shared, train = made(), made(), blobs(24)
    shared = share_batch_norm(shared, on_gpu=on_gpu)
    for network in (alone, shared):
        estimate_batch_norm(network, train, batch_size=8, seed=0)
    assert all(map(torch.equal, alone.state_dict().values(), shared.state_dict().values()))
    assert "forward" not in vars(shared.stem[1])


def test_a_training_ends_with_statistics_of_its_averaged_weights(tmp_path):
    """Few restless steps, whose averaged statistics belong to no weights: the logits are then far from the labels."""
    train, unseen = blobs(48), blobs(48, seed=1)
    losses = {}
    for precise in (False, True):
        settings = config(**AVERAGED, max_epochs=3, learning_rate=0.02, precise_batch_norm=precise)
        fitted = fit(train, None, settings, folder=tmp_path / str(precise), tracker=NullTracker())
        logits = predict_logits(fitted.network, unseen.images, batch_size=48)
        losses[precise] = float(nn.functional.binary_cross_entropy_with_logits(logits, unseen.labels.double()))
        before = [value.clone() for value in first_statistics(fitted.network)]
        estimate_batch_norm(fitted.network, train, batch_size=8, seed=settings.seed)
        same = [torch.equal(*pair) for pair in zip(first_statistics(fitted.network), before, strict=True)]
        assert same == [precise, precise]
    assert losses[True] < losses[False]
