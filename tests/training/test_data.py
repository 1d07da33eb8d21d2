"""Batches: whole, in an order drawn from (seed, epoch), augmented in training alone."""

import numpy as np
import pytest
import torch

from pipeline.training.data import CaseBatches, CaseTensors, EpochBatches


@pytest.fixture
def cases():
    images = np.random.default_rng(0).random((6, 1, 16, 16, 16), np.float32)
    return CaseTensors.from_arrays(list(images), [0, 1] * 3, list("abcdef"))


def order(batches):
    return [place for batch in batches for place in batch]


def test_a_batch_holds_the_named_cases_in_their_order(cases):
    batch = CaseBatches(cases)[[4, 1]]
    assert torch.equal(batch.images, torch.stack([cases.images[4], cases.images[1]]))
    assert batch.labels.tolist() == [[0], [1]]
    assert batch.cases.tolist() == [4, 1]


def test_network_gets_plain_tensors(cases):
    assert type(CaseBatches(cases)[[0]].images) is torch.Tensor  # MONAI's MetaTensor made training several times slower


def test_batches_show_each_case_once_in_a_new_order_each_epoch():
    batches = EpochBatches(torch.tensor([0.0, 1.0] * 20), batch_size=16, seed=3, balanced=False)
    first = list(batches)
    assert [len(batch) for batch in first] == [16, 16, 8]
    assert sorted(order(first)) == list(range(40))
    batches.set_epoch(1)
    second = order(batches)
    assert sorted(second) == list(range(40))
    assert second != order(first)
    batches.set_epoch(0)
    assert list(batches) == first


def test_a_last_batch_of_one_case_is_left_out():
    batches = EpochBatches(torch.tensor([0.0, 1.0, 0.0] * 3), batch_size=4, seed=0, balanced=False)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(batches) == 2


def test_balanced_batches_draw_both_classes_equally_often():
    labels = torch.tensor([1.0] * 10 + [0.0] * 990)
    drawn = labels[order(EpochBatches(labels, batch_size=32, seed=0, balanced=True))]
    assert 0.4 < float(drawn.mean()) < 0.6
