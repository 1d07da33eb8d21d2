"""Frozen features: computed once, never changed, and a logistic regression that is the network's last layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_fit import blobs, config

from pipeline.config.inputs import InputCache
from pipeline.errors import ConfigError, UsageError
from pipeline.models.networks import build_network, last_linear, predict_logits
from pipeline.models.stages import stages
from pipeline.training.features import FeatureStore
from pipeline.training.fit import fit
from pipeline.training.frozen import fit_frozen, fit_logistic_head
from pipeline.training.module import Classifier
from pipeline.training.networks import NetworkTask, fit_networks
from pipeline.training.tracker import NullTracker


def started(file, *, mode="end_to_end", freeze=0, **training):
    """The configuration of ``test_fit`` that starts from a file."""
    base = config(**training)
    network = base.network.model_copy(update={"weights": file, "weights_source": "made up", "freeze": freeze})
    return base.model_copy(update={"network": network, "training": base.training.model_copy(update={"mode": mode})})


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    network = build_network(config().network, dimensions=2)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value += torch.rand_like(value) / 10
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def features_alike(network, other):
    head = last_linear(network)[0]
    ours, theirs = network.state_dict(), other.state_dict()
    return {key for key in ours if not key.startswith(head) and not torch.equal(ours[key], theirs[key])}


def task_of(cases, settings, folder):
    return NetworkTask(cases, None, settings, folder, NullTracker())


def test_the_last_layer_is_learnt_and_nothing_else(weights, tmp_path):
    settings = started(weights, mode="frozen_features")
    (fitted,) = fit_networks([task_of(blobs(40), settings, tmp_path)])
    loaded = build_network(settings.network, dimensions=2)
    loaded.load_state_dict({**loaded.state_dict(), **_file(weights, loaded)})
    assert features_alike(fitted.network, loaded) == set()
    new = blobs(40, seed=9)
    logits = predict_logits(fitted.network, new.images, batch_size=8)
    assert ((logits > 0) == (new.labels == 1)).float().mean() > 0.9


def _file(weights, network):
    head = last_linear(network)[0]
    return {key: value for key, value in load_file(weights).items() if not key.startswith(head)}


def test_the_network_says_what_the_regression_on_its_features_says(weights, tmp_path):
    settings = started(weights, mode="frozen_features", class_balance="weighted_loss")
    cases = blobs(30)
    (fitted,) = fit_frozen([task_of(cases, settings, tmp_path)])
    features = FeatureStore(fitted.network, settings).of(cases)
    head = fit_logistic_head(
        features, cases.labels[:, 0].numpy().astype(np.int64), cases.patients, balanced=True, seed=settings.seed
    )
    logits = predict_logits(fitted.network, cases.images, batch_size=7)[:, 0].numpy()
    np.testing.assert_allclose(logits, features @ head.weights + head.bias, atol=1e-4)


def test_patients_stay_together_when_the_penalty_is_chosen():
    """Four copies of each patient: divided by case, remembering them would look like learning."""
    rng = np.random.default_rng(0)
    of_patient = rng.normal(size=(40, 60))
    features = (np.repeat(of_patient, 4, axis=0) + rng.normal(0, 0.01, (160, 60))).astype(np.float32)
    labels = np.repeat(np.arange(40) % 2, 4)
    patients = [f"P{number}" for number in np.repeat(np.arange(40), 4)]
    by_patient = fit_logistic_head(features, labels, patients, balanced=False, seed=0)
    by_case = fit_logistic_head(features, labels, [str(n) for n in range(160)], balanced=False, seed=0)
    assert by_patient.strength <= by_case.strength / 100


def test_one_patient_of_a_class_is_too_few_to_choose_a_penalty(weights, tmp_path):
    cases = blobs(20)
    one = replace(cases, patients=tuple("M" if label else f"B{n}" for n, label in enumerate(cases.labels[:, 0])))
    with pytest.raises(UsageError, match="10 benign and 1 malignant patients are too few to choose a penalty by"):
        fit_frozen([task_of(one, started(weights, mode="frozen_features"), tmp_path)])


def test_findings_that_are_not_known_are_left_out(weights, tmp_path):
    cases = blobs(40)
    second = cases.labels.clone()
    second[:20] = torch.nan
    both = replace(cases, labels=torch.cat([cases.labels, second], dim=1))
    settings = started(weights, mode="frozen_features")
    (fitted,) = fit_frozen([task_of(both, settings, tmp_path)])
    (alone,) = fit_frozen([task_of(replace(cases, labels=second), settings, tmp_path)])
    images = cases.images
    torch.testing.assert_close(
        predict_logits(fitted.network, images, batch_size=40)[:, 1],
        predict_logits(alone.network, images, batch_size=40)[:, 0],
        rtol=1e-4,
        atol=1e-4,
    )


def test_features_are_computed_once_and_again_where_they_are_damaged(weights, tmp_path):
    settings = started(weights, mode="frozen_features")
    cached = settings.model_copy(
        update={"data": settings.data.model_copy(update={"cache": InputCache(folder=tmp_path / "cache")})}
    )
    torch.manual_seed(0)
    network, cases = build_network(settings.network, dimensions=2), blobs(12)
    first, second = FeatureStore(network, cached), FeatureStore(network, cached)
    features = first.of(cases)
    np.testing.assert_array_equal(first.of(cases), features)
    np.testing.assert_array_equal(second.of(cases), features)
    assert (first.computed, second.computed) == (12, 0)
    entries = sorted((tmp_path / "cache").glob("*/*.features"))
    assert len(entries) == 12
    entries[0].write_bytes(bytes(len(entries[0].read_bytes())))
    entries[1].write_bytes(b"")
    third = FeatureStore(network, cached)
    np.testing.assert_array_equal(third.of(cases), features)
    assert third.computed == 2
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    other = FeatureStore(network, cached)
    assert not np.array_equal(other.of(cases), features)
    assert other.computed == 12


def test_frozen_stages_stay_as_they_were_loaded_and_the_others_learn(weights, tmp_path):
    settings = started(weights, freeze=3, max_epochs=2, patience=1)
    cases = blobs(32)
    fitted = fit(cases, cases, settings, folder=tmp_path / "run", tracker=NullTracker())
    loaded = build_network(settings.network, dimensions=2)
    loaded.load_state_dict({**loaded.state_dict(), **_file(weights, loaded)})
    changed = features_alike(fitted.network, loaded)
    assert not [key for key in changed if key.startswith(("stem", "stages.0", "stages.1"))]  # statistics included
    for part in stages(loaded)[3:-1]:
        assert set(part) <= changed


def test_frozen_weights_must_be_in_the_file(weights, tmp_path):
    part = {key: value for key, value in load_file(weights).items() if not key.startswith("stages.3")}
    part |= {key: value for key, value in load_file(weights).items() if key.startswith("stages.3.body.0")}
    save_file(part, tmp_path / "part.safetensors")
    settings = started(tmp_path / "part.safetensors", mode="frozen_features")
    with pytest.raises(ConfigError, match=r"has no 'stages\.3\.\S+' \(\d+ such tensors\), which would stay random"):
        fit_frozen([task_of(blobs(20), settings, tmp_path)])


@pytest.mark.parametrize(("decay", "schedule"), [(0.5, "constant"), (0.5, "one_cycle"), (1.0, "one_cycle")])
def test_earlier_stages_learn_slower(decay, schedule):
    settings = config(layer_decay=decay, schedule=schedule, learning_rate=0.08).training
    network = build_network(config().network, dimensions=2)
    made = Classifier(network, settings, steps=10).configure_optimizers()
    key = "max_lr" if schedule == "one_cycle" else "lr"
    rates = [group[key] for group in made["optimizer"].param_groups]
    assert rates == pytest.approx([0.08 * 0.5**n for n in (5, 4, 3, 2, 1, 0)] if decay < 1 else [0.08])
    held = [weight for group in made["optimizer"].param_groups for weight in group["params"]]
    assert len(held) == len(list(network.parameters()))
