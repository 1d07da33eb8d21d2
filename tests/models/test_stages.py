"""Stages of a network: every weight is in one, in order, and freezing or slowing them is by stage."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.training import NETWORKS, Network
from pipeline.errors import ConfigError
from pipeline.models.networks import build_network, last_linear
from pipeline.models.stages import freeze_stages, keep_frozen_statistics, learning_rates, stages

COUNTS = {"compact": 6, "planes": 6, "cnn_lstm": 6, "efficientnet_b0": 10, "efficientnet_lite0": 10}  # others 6


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("average", [False, True])
def test_every_weight_is_in_one_stage_and_the_logit_in_the_last(name, average):
    network = build_network(Network(name=name, average_flips=average), dimensions=3)
    parts = stages(network)
    assert sorted(key for part in parts for key in part) == sorted(dict(network.named_parameters()))
    assert len(parts) == COUNTS.get(name, 6)
    assert f"{last_linear(network)[0]}.weight" in parts[-1]
    order = [key for key, _ in network.named_parameters()]
    firsts = [order.index(part[0]) for part in parts]
    assert firsts == sorted(firsts)  # networks are written in the order in which they compute


def test_frozen_features_leave_the_last_layer():
    network = build_network(Network(name="efficientnet_lite0"), dimensions=2)
    frozen = freeze_stages(network, "features")
    learnt = {key for key, weight in network.named_parameters() if weight.requires_grad}
    assert learnt == {"network._fc.weight", "network._fc.bias"}
    assert len(frozen) + len(learnt) == len(list(network.named_parameters()))


def test_freezing_everything_is_refused():
    network = build_network(Network(), dimensions=2)
    freeze_stages(network, 5)
    with pytest.raises(ConfigError, match=r"6 stages leave nothing to learn: .* freeze at most 5"):
        freeze_stages(network, 6)


def test_statistics_of_frozen_stages_stay_and_those_of_others_move():
    network = build_network(Network(), dimensions=2)
    freeze_stages(network, 2)
    network.train()
    keep_frozen_statistics(network)
    before = {key: value.clone() for key, value in network.named_buffers()}
    network(torch.rand(4, 1, 32, 32) * 5)
    moved = {key.rpartition(".")[0] for key, value in network.named_buffers() if not torch.equal(value, before[key])}
    assert moved
    assert not [name for name in moved if name.startswith(("stem", "stages.0"))]
    assert [name for name in moved if name.startswith("stages.1")]


def test_rates_fall_by_stage_towards_the_image():
    network = build_network(Network(), dimensions=2)
    freeze_stages(network, 1)
    groups = learning_rates(network, 0.1, 0.5)
    assert [rate for _, rate in groups] == pytest.approx([0.1 * 0.5**n for n in (4, 3, 2, 1, 0)])
    assert groups[0][0][0].startswith("stages.0")
    assert groups[-1][0] == ["head.3.weight", "head.3.bias"]
