"""Grad-CAM points at what a network uses, for every network, and leaves the network as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.config.training import Network
from pipeline.models.networks import build_network
from pipeline.models.saliency import middle_planes, saliency_planes

SIDE = 32
QUICK = [("compact", 2), ("compact", 3), ("planes", 3)]
LSTM = ("cnn_lstm", 3)
LARGE = [
    ("resnet10", 2),
    ("resnet10", 3),
    ("resnet50", 2),
    ("densenet121", 2),
    ("densenet121", 3),
    ("efficientnet_b0", 2),
    ("efficientnet_lite0", 2),
]


def spots(count, dimensions, rng):
    """Noise; in every other input a bright spot, anywhere on one of the middle planes."""
    images = rng.normal(0.3, 0.05, (count, 1, *[SIDE] * dimensions)).astype(np.float32)
    for image in images[1::2, 0]:
        place = rng.integers(4, SIDE - 4, dimensions)
        if dimensions == 3:
            place[rng.integers(3)] = SIDE // 2
        paint(image, place)
    return images


def paint(image, place):
    image[tuple(slice(middle - 3, middle + 3) for middle in place)] += 0.6


def trained(config, dimensions):
    torch.manual_seed(0)
    network = build_network(config, dimensions=dimensions)
    rng, labels = np.random.default_rng(0), torch.arange(16) % 2
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(80):  # after 40, batch normalisation's averages still lag behind what was learnt
        images = torch.from_numpy(spots(16, dimensions, rng))
        loss = functional.binary_cross_entropy_with_logits(network(images).squeeze(1), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def test_heat_of_a_global_mean_is_what_each_place_adds_to_the_logit():
    torch.manual_seed(0)
    network = build_network(Network(width=4), dimensions=2).eval()
    image = np.random.default_rng(0).random((1, SIDE, SIDE), np.float32)
    with torch.no_grad():
        features = network.stages(network.stem(torch.from_numpy(image)[None]))  # (1, C, 4, 4)
        added = torch.einsum("c,bcij->bij", network.head[-1].weight[0], features)[None]
        heats = [saliency_planes([network], image, towards=side)[0] for side in (0, 1)]
    for heat, sign in zip(heats, (-1, 1), strict=True):
        fine = functional.interpolate((sign * added).relu(), size=(SIDE, SIDE), mode="bilinear")[0, 0].numpy()
        assert np.abs(heat - fine / max(fine.max(), 1e-12)).max() < 1e-4


def test_heat_of_a_shortened_residual_network_is_of_its_last_stage():
    torch.manual_seed(0)
    network = build_network(Network(name="resnet10", stages=1), dimensions=2).eval()
    image = np.random.default_rng(0).random((1, SIDE, SIDE), np.float32)
    seen = {}
    network.layer1.register_forward_hook(lambda _module, _images, features: seen.update(features=features))
    with torch.no_grad():
        network(torch.from_numpy(image)[None])
        added = torch.einsum("c,bcij->bij", network.fc[1].weight[0], seen["features"])[None]
    heat = saliency_planes([network], image, towards=1)[0]
    fine = functional.interpolate(added.relu(), size=(SIDE, SIDE), mode="bilinear")[0, 0].numpy()
    assert heat.max() == 1
    assert np.abs(heat - fine / fine.max()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dimensions"), QUICK)
@pytest.mark.parametrize("average_flips", [False, True])
def test_heat_lies_on_the_spot_that_the_label_depends_on(name, dimensions, average_flips):
    network = trained(Network(name=name, width=8, average_flips=average_flips), dimensions)
    image = spots(1, dimensions, np.random.default_rng(1))[0]
    paint(image[0], (8, 24, SIDE // 2)[:dimensions])
    towards, away = (saliency_planes([network], image, towards=side)[0] for side in (1, 0))
    evidence = towards - away  # either may be nothing: a network can wait for a spot, or for its absence
    assert evidence.shape == (SIDE, SIDE)
    assert evidence[5:11, 21:27].mean() > np.quantile(evidence, 0.9)


@pytest.mark.parametrize(
    ("name", "dimensions", "average_flips"),
    [(*each, flips) for each in (*QUICK, LSTM) for flips in (False, True)]
    + [pytest.param(*each, False, marks=pytest.mark.slow) for each in LARGE],
)
def test_every_network_has_a_map_of_every_plane(name, dimensions, average_flips):
    torch.manual_seed(1)
    network = build_network(Network(name=name, average_flips=average_flips), dimensions=dimensions).eval()
    before = copy.deepcopy(network.state_dict())
    image = np.random.default_rng(0).random((1, *[SIDE - 4] * dimensions), np.float32)  # smaller than DenseNet takes
    heats = [saliency_planes([network], image, towards=side) for side in (0, 1)]
    for heat in heats:
        assert [each.shape for each in heat] == [each.shape for each in middle_planes(image[0])]
        assert min(float(each.min()) for each in heat) >= 0.0
    peaks = [max(float(each.max()) for each in heat) for heat in heats]
    assert max(peaks) == pytest.approx(1.0)
    assert min(peaks) == pytest.approx(round(min(peaks)))  # 0 where random weights lean one way everywhere
    assert max(float(np.ptp(each)) for each in heats[int(np.argmax(peaks))]) > 0.2  # it points somewhere
    assert any(np.abs(one - two).max() > 0.1 for one, two in zip(*heats, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


@pytest.mark.parametrize(("name", "dimensions"), [("compact", 2), ("compact", 3)])
def test_averaged_heat_of_a_mirror_image_is_the_mirrored_heat(name, dimensions):
    torch.manual_seed(2)
    network = build_network(Network(name=name, width=4, average_flips=True), dimensions=dimensions).eval()
    image = np.random.default_rng(3).random((1, *[SIDE] * dimensions), np.float32)
    straight, mirrored = (saliency_planes([network], each, towards=1)[0] for each in (image, image[:, ::-1].copy()))
    assert np.abs(straight - mirrored[::-1]).max() < 1e-4


def test_mean_over_members_is_shown():
    torch.manual_seed(0)
    networks = [build_network(Network(width=4), dimensions=2).eval() for _ in range(2)]
    image = np.random.default_rng(0).random((1, SIDE, SIDE), np.float32)
    both, swapped, twice = (
        [saliency_planes(members, image, towards=side)[0] for side in (0, 1)]
        for members in (networks, networks[::-1], [networks[0]] * 2)
    )
    alone = [[saliency_planes([network], image, towards=side)[0] for side in (0, 1)] for network in networks]
    assert np.allclose(both, swapped, atol=1e-5)
    assert np.allclose(twice, alone[0], atol=1e-5)
    assert all(np.abs(np.subtract(both, each)).max() > 1e-3 for each in alone)
