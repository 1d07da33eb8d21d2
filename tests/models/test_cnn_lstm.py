"""Slices through an LSTM: padding says nothing, order does, and the gates are those of torch's own LSTM."""

import pytest
import torch
from torch import nn

from pipeline.config.training import Network
from pipeline.models.cnn_lstm import MaskedLSTM
from pipeline.models.networks import build_network

CONFIG = Network(name="cnn_lstm", width=4)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_network(CONFIG, dimensions=3)
    network(torch.randn(8, 1, 28, 28, 6))  # moves the running statistics of batch normalisation off their start
    return network.eval()


@pytest.fixture
def scan():
    return torch.rand(2, 1, 28, 28, 6, generator=torch.Generator().manual_seed(1))


def padded(scan, before, after, value=0.0):
    shape = list(scan.shape)
    parts = [torch.full((*shape[:4], count), value) for count in (before, after)]
    return torch.cat([parts[0], scan, parts[1]], dim=4)


@pytest.mark.parametrize(("before", "after"), [(0, 4), (4, 0), (3, 2)])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_padding_never_changes_the_output(network, scan, before, after, value):
    with torch.inference_mode():
        torch.testing.assert_close(network(padded(scan, before, after, value)), network(scan), atol=1e-6, rtol=0)


def test_padding_within_one_batch_changes_no_other_case(network, scan):
    mixed = torch.cat([padded(scan[:1, ..., :3], 1, 2), scan[1:]])
    with torch.inference_mode():
        alone = torch.cat([network(scan[:1, ..., :3]), network(scan[1:])])
        torch.testing.assert_close(network(mixed), alone, atol=1e-6, rtol=0)


def test_padding_changes_neither_loss_nor_statistics_in_training(scan):
    results = []
    for images in (scan, padded(scan, 2, 3)):
        torch.manual_seed(0)
        network = build_network(CONFIG, dimensions=3).train()
        network(images).sum().backward()
        results.append([weight.grad for weight in network.parameters()] + list(network.buffers()))
    for bare, more in zip(*results, strict=True):
        torch.testing.assert_close(bare, more, atol=1e-5, rtol=1e-4)


def test_a_mask_that_is_given_wins_over_the_constant_slices(network, scan):
    present = torch.tensor([[True] * 4 + [False] * 2] * 2)
    with torch.inference_mode():
        torch.testing.assert_close(network(scan, present), network(scan[..., :4]), atol=1e-6, rtol=0)
        assert not torch.allclose(network(scan, present), network(scan), atol=1e-6)


def test_slice_order_changes_the_output(network, scan):
    with torch.inference_mode():
        for order in ([5, 4, 3, 2, 1, 0], [0, 2, 1, 3, 4, 5]):
            assert (network(scan[..., order]) - network(scan)).abs().max() > 1e-5


def test_nothing_but_padding_is_finite(network):
    with torch.inference_mode():
        assert torch.isfinite(network(torch.zeros(2, 1, 28, 28, 5))).all()


def test_attention_sums_to_one_and_ignores_padding(network, scan):
    present = torch.tensor([[False, True, True, True, False, False], [True] * 6])
    with torch.inference_mode():
        said = network.read(torch.rand(2, 6, network.upwards.input_size), present)
        weights = network.weigh(said, present)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights[~present] == 0).all()
    assert (weights[present] > 0).all()


def test_the_recurrence_is_that_of_torchs_lstm_on_each_cases_own_steps():
    torch.manual_seed(0)
    ours, inputs = MaskedLSTM(5, 7), torch.randn(3, 6, 5)
    theirs = nn.LSTM(5, 7, batch_first=True)
    theirs.load_state_dict({f"{name}_l0": value for name, value in ours.state_dict().items()})
    present = torch.tensor(
        [[True] * 6, [False, True, True, True, True, False], [True, False, True, False, True, False]]
    )
    with torch.no_grad():
        states = ours(inputs, present)
        for case in range(3):
            expected, _ = theirs(inputs[case : case + 1, present[case]])
            torch.testing.assert_close(states[case, present[case]], expected[0], atol=1e-6, rtol=0)


def test_gates_lie_between_0_and_1():
    torch.manual_seed(0)
    _, gates = MaskedLSTM(5, 7).trace(torch.randn(2, 4, 5) * 10, torch.ones(2, 4, dtype=torch.bool))
    assert gates.shape == (2, 4, 3, 7)
    assert ((gates >= 0) & (gates <= 1)).all()
