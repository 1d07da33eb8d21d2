"""Networks: one logit, usable from 28 voxels, nothing in them that ONNX cannot hold."""

import pytest
import torch
from torch.nn import functional

from pipeline.config.training import NETWORKS, Network
from pipeline.models.networks import build_network, keep_outputs, predict_logits
from pipeline.models.softmax import SoftmaxLinear

_DIMENSIONS = {"planes": (3,), "cnn_lstm": (3,)}


@pytest.mark.parametrize(
    ("name", "dimensions"), [(name, dimensions) for name in NETWORKS for dimensions in _DIMENSIONS.get(name, (2, 3))]
)
@pytest.mark.parametrize("side", [28, 33])
def test_every_network_gives_one_logit_from_28_voxels_up(name, dimensions, side):
    network = build_network(Network(name=name), dimensions=dimensions).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 1, *[side] * dimensions))
    assert logits.shape == (2, 1)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_reaches_every_weight(name):
    dimensions = _DIMENSIONS.get(name, (2,))[0]
    network = build_network(Network(name=name), dimensions=dimensions).train()
    network(torch.randn(4, 1, *[64] * dimensions)).sum().backward()
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


def trainable_weights(network):
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def test_compact_is_small():
    assert trainable_weights(build_network(Network(), dimensions=3)) < 500_000
    assert trainable_weights(build_network(Network(width=8), dimensions=3)) < 150_000


def test_planes_look_through_the_centre_and_nowhere_else():
    torch.manual_seed(0)
    network = build_network(Network(name="planes"), dimensions=3).eval()
    images = torch.rand(1, 1, 32, 32, 32)
    corner = images.clone()
    corner[..., :14, :14, :14] += 1.0  # no plane through the centre, nor its neighbours, passes here
    centre = images.clone()
    centre[..., 16, 16, 16] += 1.0
    with torch.inference_mode():
        assert torch.equal(network(images), network(corner))
        assert not torch.equal(network(images), network(centre))


@pytest.mark.parametrize(("name", "dimensions"), [("compact", 2), ("compact", 3), ("planes", 3)])
def test_averaging_flips_makes_mirror_images_equal_and_only_outside_training(name, dimensions):
    torch.manual_seed(0)
    network = build_network(Network(name=name, average_flips=True), dimensions=dimensions)
    images = torch.rand(2, 1, *[29] * dimensions)  # an odd side, so that the middle stays the middle
    with torch.inference_mode():
        for axis in range(2, 2 + dimensions):
            torch.testing.assert_close(network.eval()(images.flip(axis)), network(images), atol=1e-6, rtol=0)
        assert not torch.allclose(network.train()(images.flip(2)), network(images), atol=1e-6)


@pytest.mark.parametrize(("name", "dimensions"), [("compact", 2), ("planes", 3)])
def test_averaging_turns_makes_every_quarter_turn_and_mirror_image_equal(name, dimensions):
    torch.manual_seed(0)
    network = build_network(Network(name=name, average_flips=True, average_turns=True), dimensions=dimensions).eval()
    images = torch.rand(2, 1, *[29] * dimensions)
    with torch.inference_mode():
        for turns in (1, 2, 3):
            turned = torch.rot90(images, turns, (2, 3))
            torch.testing.assert_close(network(turned), network(images), atol=1e-6, rtol=0)
            torch.testing.assert_close(network(turned.flip(3)), network(images), atol=1e-6, rtol=0)


def test_centre_weighted_pooling_is_a_mean_that_prefers_the_middle():
    network = build_network(Network(pooling="center"), dimensions=2)
    pool = network.head[0]
    assert torch.allclose(pool(torch.full((1, 2, 6, 7), 3.0)), torch.full((1, 2, 1, 1), 3.0))
    impulses = torch.eye(36).view(36, 1, 6, 6)  # one voxel a case
    weights = pool(impulses).view(6, 6)
    assert torch.allclose(weights, weights.flip(0))
    assert torch.allclose(weights, weights.T)
    gaussian = torch.exp(-(((torch.arange(6) - 2.5) / 1.5) ** 2) / 2)  # slow definition
    assert torch.allclose(weights, torch.outer(gaussian, gaussian) / gaussian.sum() ** 2)


@pytest.mark.parametrize("findings", [1, 3])
@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", NETWORKS)
def test_dropping_auxiliary_outputs_leaves_the_logits(name, head, findings):
    dimensions = _DIMENSIONS.get(name, (2,))[0]
    config = Network(name=name, average_flips=True, head=head)
    network = build_network(config, dimensions=dimensions, outputs=4).eval()
    images = torch.rand(2, 1, *[32] * dimensions)
    with torch.inference_mode():
        before = network(images)
        keep_outputs(network, findings)
        after = network(images)
    assert (before.shape, after.shape) == ((2, 4), (2, findings))
    torch.testing.assert_close(before[:, :findings], after)
    fresh = build_network(config, dimensions=dimensions, outputs=findings)
    fresh.load_state_dict(network.state_dict())  # it is saved and loaded as a network that never had them


def test_softmax_of_two_logits_is_the_sigmoid_of_their_difference_in_value_loss_and_gradient():
    torch.manual_seed(0)
    layer, features, labels = SoftmaxLinear(5, 1), torch.randn(8, 5), torch.arange(8) % 2
    pairs = functional.linear(features, layer.weight, layer.bias)  # (8, benign and malignant)
    difference = layer(features).squeeze(1)
    torch.testing.assert_close(pairs.softmax(dim=1)[:, 1], difference.sigmoid())
    with_softmax = functional.cross_entropy(pairs, labels)
    with_sigmoid = functional.binary_cross_entropy_with_logits(difference, labels.float())
    torch.testing.assert_close(with_softmax, with_sigmoid)
    gradients = [torch.autograd.grad(loss, layer.weight, retain_graph=True) for loss in (with_softmax, with_sigmoid)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_softmax_network_with_opposite_weights_is_the_sigmoid_network(name):
    dimensions = _DIMENSIONS.get(name, (2,))[0]
    sigmoid, softmax = (
        build_network(Network(name=name, head=head), dimensions=dimensions).eval() for head in ("sigmoid", "softmax")
    )
    weights = sigmoid.state_dict()
    last = list(weights)[-2:]  # weight and bias of the last layer
    weights |= {key: torch.cat([-weights[key], weights[key]]) / 2 for key in last}
    softmax.load_state_dict(weights)
    images = torch.rand(2, 1, *[32] * dimensions)
    with torch.inference_mode():
        torch.testing.assert_close(softmax(images), sigmoid(images))


@pytest.mark.parametrize("name", ["compact", "planes", "cnn_lstm"])
@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid"])
def test_every_hidden_unit_has_the_configured_activation(name, activation):
    network = build_network(Network(name=name, width=4, activation=activation), dimensions=3)
    kinds = [type(each).__name__.lower() for each in network.modules()]
    assert kinds.count(activation.replace("_", "")) >= 9  # the stem's and two in each of four blocks
    assert "relu" not in kinds


@pytest.mark.parametrize(("name", "width"), [("resnet10", 64), ("resnet50", 256), ("i3resnet152", 256)])
@pytest.mark.parametrize("dimensions", [2, 3])
@torch.inference_mode()
def test_first_stages_of_a_residual_network_are_those_of_the_whole(name, width, dimensions):
    torch.manual_seed(0)
    whole = build_network(Network(name=name, dropout=0.3), dimensions=dimensions).eval()
    for stages in (1, 2):
        part = build_network(Network(name=name, dropout=0.3, stages=stages), dimensions=dimensions).eval()
        assert part.load_state_dict(whole.state_dict() | last_layer_of(part), strict=False).missing_keys == []
        seen = {}
        part.fc.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(part=inputs[0]))
        layer = whole.get_submodule(f"layer{stages}")
        layer.register_forward_hook(lambda _module, _inputs, outputs, seen=seen: seen.update(whole=outputs))
        images = torch.rand(2, 1, *[32] * dimensions)
        assert part(images).shape == (2, 1)
        whole(images)
        assert seen["part"].shape == (2, width * stages)
        torch.testing.assert_close(seen["part"], seen["whole"].mean(dim=tuple(range(2, 2 + dimensions))))


def last_layer_of(network):
    return {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}


def test_residual_networks_may_weigh_the_middle():
    torch.manual_seed(0)
    mean, center = (
        build_network(Network(name="resnet10", stages=1, pooling=pooling), dimensions=2).eval()
        for pooling in ("mean", "center")
    )
    center.load_state_dict(mean.state_dict())
    images = torch.zeros(1, 1, 64, 64)
    images[..., :8, :8] = 1.0  # a corner
    dark = torch.zeros_like(images)
    with torch.inference_mode():
        moved = [float((network(images) - network(dark)).abs()) for network in (mean, center)]
    assert moved[1] < moved[0] / 2
