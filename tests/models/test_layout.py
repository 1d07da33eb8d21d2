"""The fast layout: the same weights under the same names, and the same values and gradients but for rounding."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.config_training import Network
from pipeline.models.layout import to_fast_layout
from pipeline.models.networks import build_network


@pytest.mark.parametrize(
    ("dimensions", "kernel", "stride", "padding"),
    [(2, 5, 2, 2), (3, 7, 2, 3), (3, 7, 1, 3), (3, (3, 5, 4), (1, 2, 3), (1, 0, 2))],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_is_the_convolution(dimensions, kernel, stride, padding, bias):
    torch.manual_seed(0)
    make = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
    plain = make(1, 8, kernel, stride=stride, padding=padding, bias=bias)
    folded = to_fast_layout(copy.deepcopy(plain))
    assert type(folded) is not make
    images = torch.rand(2, 1, *(13, 12, 11)[:dimensions]).bfloat16().float()  # exact in bf16, so only sums differ
    for each in (plain, folded):
        for weight in each.parameters():
            weight.data = weight.data.bfloat16().float()
    outputs = []
    for each in (plain, folded):
        with torch.autocast("cpu", torch.bfloat16):
            found = each(images)
        found.float().square().mean().backward()
        outputs.append(found.float())
    assert outputs[0].shape == outputs[1].shape
    torch.testing.assert_close(outputs[1], outputs[0], atol=0.01, rtol=0.01)
    torch.testing.assert_close(folded.weight.grad, plain.weight.grad, atol=0.01, rtol=0.02)
    torch.testing.assert_close(folded(images), plain(images), atol=1e-6, rtol=1e-5)  # without autocast it is not folded


@pytest.mark.parametrize(
    ("name", "dimensions"), [("compact", 2), ("compact", 3), ("planes", 3), ("resnet18", 3), ("densenet121", 3)]
)
def test_weights_keep_names_shapes_and_values(name, dimensions):
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=dimensions)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    after = to_fast_layout(network).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_network_in_bf16_says_what_it_says_without_folding():
    torch.manual_seed(0)
    network = build_network(Network(name="compact"), dimensions=3).eval()
    images = torch.rand(4, 1, 32, 32, 32)
    with torch.inference_mode():
        exact = network(images)
        folded = to_fast_layout(copy.deepcopy(network))
        torch.testing.assert_close(folded(images), exact, atol=1e-5, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            plain, fast = network(images), folded(images)
    assert (fast - exact).abs().max() < 2 * (plain - exact).abs().max() + 0.01
