"""Networks: one logit, usable from 28 voxels, nothing in them that ONNX cannot hold."""

import pytest
import torch

from pipeline.config import NETWORKS, Network
from pipeline.models.networks import build_network, parameter_count, predict_logits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("side", [28, 33])
def test_every_network_gives_one_logit_from_28_voxels_up(name, dimensions, side):
    network = build_network(Network(name=name), dimensions=dimensions).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 1, *[side] * dimensions))
    assert logits.shape == (2, 1)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_reaches_every_weight(name):
    network = build_network(Network(name=name), dimensions=2).train()
    network(torch.randn(4, 1, 64, 64)).sum().backward()
    dead = [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    # A bias in front of batch normalisation would be dead by construction; there is none.
    assert dead == []


def test_padding_of_small_inputs_is_symmetric_and_only_for_densenet():
    network = build_network(Network(name="densenet121"), dimensions=2)
    seen = {}
    network.network.register_forward_pre_hook(lambda _, inputs: seen.update(image=inputs[0]))
    network(torch.ones(2, 1, 28, 40))
    assert seen["image"].shape == (2, 1, 32, 40)
    assert seen["image"][0, 0, :, 0].tolist() == [0, 0, *[1] * 28, 0, 0]


def test_probabilities_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = build_network(Network(), dimensions=3).eval()
    images = torch.rand(7, 1, 28, 28, 28)
    together = torch.sigmoid(predict_logits(network, images, batch_size=7))
    alone = torch.sigmoid(predict_logits(network, images, batch_size=1))
    assert (together - alone).abs().max() < 1e-6


def test_compact_is_small():
    assert parameter_count(build_network(Network(), dimensions=3)) < 500_000
    assert parameter_count(build_network(Network(width=8), dimensions=3)) < 150_000
