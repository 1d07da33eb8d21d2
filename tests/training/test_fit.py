"""Training: it learns, it repeats itself, it picks by validation, and it stops on nonsense."""

import math
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import get_worker_info

from pipeline.config.experiment import Config
from pipeline.errors import UnfinishedError
from pipeline.models.networks import predict_logits
from pipeline.training import progress
from pipeline.training.data import Batch, CaseTensors
from pipeline.training.fit import fit
from pipeline.training.module import Classifier, prior_offset
from pipeline.training.progress import NetworkPlace
from pipeline.training.tracker import NullTracker


def config(**training):
    early = training.pop("patience", 3)
    return Config.model_validate(
        {
            "name": "test",
            "data": {"manifest": "none.csv", "modality": "CT", "label_source": "made up"},
            "preprocessing": {"dimensions": 2, "region": "image", "size": [28, 28], "spacing_mm": [1.0, 1.0]},
            "network": {"name": "compact", "width": 8},
            "calibration": {"method": "platt"},
            "training": {
                "max_epochs": 4,
                "batch_size": 8,
                "learning_rate": 0.01,
                "loader_workers": 0,
                "early_stopping": {"patience": early},
                **training,
            },
        }
    )


def blobs(count, seed=0):
    """Bright squares (1) and none (0) in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(0.3, 0.1, (count, 1, 28, 28)).astype(np.float32)
    images[labels == 1, :, 10:18, 10:18] += 0.4
    return CaseTensors.from_arrays(list(images), labels.tolist(), [str(n) for n in range(count)])


class Recorder:
    def __init__(self):
        self.steps = {}

    def metrics(self, values, *, step):
        self.steps.setdefault(step, {}).update(values)


def test_eight_cases_can_be_overfitted(tmp_path):
    cases = blobs(8)
    noise = replace(cases, images=torch.rand(8, 1, 28, 28))  # nothing to see but the cases themselves
    fitted = fit(
        noise,
        noise,
        config(max_epochs=40, patience=39, schedule="constant"),
        folder=tmp_path,
        tracker=NullTracker(),
    )
    assert ((predict_logits(fitted.network, noise.images, batch_size=8) > 0) == (noise.labels == 1)).all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # bf16: where Lightning refuses a fused optimiser
def test_gradients_are_clipped_whatever_the_optimiser(tmp_path, monkeypatch, precision):
    clip, norms = Classifier.configure_gradient_clipping, []

    def clip_and_look(module, optimizer, *limits, **named):
        clip(module, optimizer, *limits, **named)
        norms.append(torch.stack([each.grad.norm() for each in module.parameters()]).norm())

    monkeypatch.setattr(Classifier, "configure_gradient_clipping", clip_and_look)
    settings = config(max_epochs=2, patience=1, gradient_clip=0.001, precision=precision, accelerator="cpu")
    fit(blobs(16), blobs(8, seed=1), settings, folder=tmp_path, tracker=NullTracker())
    assert len(norms) == 4
    assert max(norms) == pytest.approx(0.001, rel=0.01)


def test_learns_repeats_itself_and_keeps_the_best_epoch(tmp_path):
    recorder = Recorder()
    one = fit(blobs(48), blobs(24, seed=1), config(), folder=tmp_path / "1", tracker=recorder)
    two = fit(blobs(48), blobs(24, seed=1), config(), folder=tmp_path / "2", tracker=NullTracker())
    losses = {step: values["validation_log_loss"] for step, values in recorder.steps.items()}
    assert one.best_epoch == min(losses, key=losses.get)
    assert one.validation["validation_log_loss"] == pytest.approx(min(losses.values()))
    assert recorder.steps[one.best_epoch]["validation_auroc"] > 0.95
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    )


def test_best_weights_are_the_ones_returned(tmp_path):
    validation = blobs(24, seed=1)
    fitted = fit(blobs(48), validation, config(ema_decay=0.5), folder=tmp_path, tracker=NullTracker())
    logits = predict_logits(fitted.network, validation.images, batch_size=24)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, validation.labels.double())
    assert float(loss) == pytest.approx(fitted.validation["validation_log_loss"], abs=1e-5)


def test_without_early_stopping_the_last_weights_are_returned(tmp_path):
    recorder, validation = Recorder(), blobs(24, seed=1)
    settings = config(early_stopping=None, ema_decay=0.5, learning_rate=0.05, schedule="constant")  # restless
    fitted = fit(blobs(48), validation, settings, folder=tmp_path, tracker=recorder)
    losses = {step: values["validation_log_loss"] for step, values in recorder.steps.items()}
    logits = predict_logits(fitted.network, validation.images, batch_size=24)
    loss = float(torch.nn.functional.binary_cross_entropy_with_logits(logits, validation.labels.double()))
    assert fitted.best_epoch == fitted.epochs == max(losses) == 4
    assert loss == pytest.approx(losses[4], abs=1e-5) == fitted.validation["validation_log_loss"]
    assert len(set(losses.values())) == 4


def test_gradient_at_the_first_layer_is_smaller_behind_sigmoid_units(tmp_path):
    first = {}
    for activation in ("relu", "sigmoid"):
        settings, recorder = config(max_epochs=2, patience=1), Recorder()
        network = settings.network.model_copy(update={"activation": activation})
        settings = settings.model_copy(update={"network": network})
        fit(blobs(24), blobs(8), settings, folder=tmp_path / activation, tracker=recorder)
        first[activation] = recorder.steps[1]["first_layer_gradient"]
    assert 0 < first["sigmoid"] < first["relu"] / 3


def test_slices_through_an_lstm_learn_which_order_the_slices_had(tmp_path):
    rng = np.random.default_rng(0)
    slices = np.sort(rng.random((16, 1, 1, 1, 6)), axis=-1).astype(np.float32) + np.zeros((28, 28, 1), np.float32)
    slices[:, :, 0, 0] += 0.1  # no slice is constant, as padding would be
    labels = np.arange(16) % 2
    slices[labels == 1] = slices[labels == 1, ..., ::-1]  # the same slices, downwards
    cases = CaseTensors.from_arrays(list(slices), labels.tolist(), [str(n) for n in range(16)])
    tree = config(max_epochs=30, patience=29, schedule="constant").model_dump()
    tree["network"] |= {"name": "cnn_lstm", "width": 4}
    tree["preprocessing"] |= {"dimensions": 3, "size": (28, 28, 8), "spacing_mm": (1.0, 1.0, 4.0)}
    settings = Config.model_validate(tree)
    fitted = fit(cases, cases, settings, folder=tmp_path, tracker=NullTracker())
    assert ((predict_logits(fitted.network, cases.images, batch_size=16) > 0) == (cases.labels == 1)).all()


def test_number_of_loader_processes_changes_nothing(tmp_path):
    weights = []
    for workers in (0, 2):
        fitted = fit(
            blobs(24),
            blobs(8),
            config(max_epochs=2, patience=1, loader_workers=workers),
            folder=tmp_path / str(workers),
            tracker=NullTracker(),
        )
        weights.append(torch.cat([value.flatten().float() for value in fitted.network.state_dict().values()]))
    assert torch.equal(*weights)


def test_loss_that_is_not_finite_stops_within_the_step_and_names_the_cases(tmp_path):
    cases = blobs(16)
    cases.images[3] = math.nan
    with pytest.raises(UnfinishedError, match=r"loss of epoch 1, batch \d is nan; .*\b3\b.* training\.learning_rate"):
        fit(cases, blobs(8), config(), folder=tmp_path, tracker=NullTracker())
    assert not list(tmp_path.iterdir())  # nothing was worth keeping


def test_loss_that_explodes_keeps_the_last_good_checkpoint(tmp_path):
    class Poison(Recorder):
        """Spoils a case once the second epoch is over."""

        def metrics(self, values, *, step):
            if step == 2:
                cases.images[5] = math.inf

    cases = blobs(16)
    with pytest.raises(UnfinishedError, match=r"epoch 3, batch \d is nan; look at its cases \(.*\b5\b"):
        fit(cases, blobs(8), config(), folder=tmp_path, tracker=Poison())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 1
    assert all(bool(value.isfinite().all()) for value in kept["state_dict"].values())


class Deadly:
    """Images of which one kills the process that reads it, as a fault in a decoder would."""

    def __init__(self, images):
        self._images = images

    def __getitem__(self, places):
        if 5 in places.tolist() and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._images[places]


def test_dead_loader_process_names_the_cases_that_it_held(tmp_path):
    cases = blobs(16)
    deadly = replace(cases, images=Deadly(cases.images))
    settings = config(loader_workers=1, batch_size=2)
    with pytest.raises(UnfinishedError, match=r"a loader process died .* these cases were read: .*\b5\b.*--resume"):
        fit(deadly, blobs(8), settings, folder=tmp_path, tracker=NullTracker())


def test_prior_offset_undoes_class_balancing():
    labels = torch.tensor([1.0] * 20 + [0.0] * 80)
    assert prior_offset(labels, "none") == 0
    assert prior_offset(labels, "weighted_loss") == pytest.approx(math.log(4))
    assert prior_offset(labels, "balanced_sampler") == pytest.approx(math.log(4))


@pytest.mark.parametrize("balance", ["weighted_loss", "balanced_sampler"])
def test_balanced_training_shifts_the_logit_by_the_offset_it_reports(tmp_path, balance):
    """On pure noise the best logit is the log odds; balancing moves it to 0, and the offset moves it back."""
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 5 == 0).astype(int)
    cases = CaseTensors.from_arrays(
        list(rng.normal(0.3, 0.1, (200, 1, 28, 28)).astype(np.float32)), labels.tolist(), [str(n) for n in range(200)]
    )
    settings = config(class_balance=balance, learning_rate=1e-3, max_epochs=6, patience=5).model_copy()
    fitted = fit(cases, cases, settings, folder=tmp_path, tracker=NullTracker())
    corrected = predict_logits(fitted.network, cases.images, batch_size=50) - fitted.prior_offset
    assert float(torch.sigmoid(corrected).mean()) == pytest.approx(0.2, abs=0.08)


def several(count, seed=0, *, known=1.0):
    """Blobs whose second finding is a bright stripe, independent of the first, known for a share of the cases."""
    rng = np.random.default_rng(seed)
    cases = blobs(count, seed)
    stripe = np.arange(count) // 2 % 2
    cases.images[torch.from_numpy(stripe == 1), :, 2:5] += 0.4
    second = np.where(rng.random(count) < known, stripe, np.nan)
    return replace(cases, labels=torch.stack([cases.labels[:, 0], torch.from_numpy(second).float()], dim=1)), stripe


def fit_several(tmp_path, train, validation):
    train, validation = (replace(each, targets=each.labels) for each in (train, validation))
    return fit(train, validation, config(max_epochs=6, patience=5), folder=tmp_path, tracker=NullTracker())


def test_each_finding_is_learnt_from_the_cases_that_have_it(tmp_path):
    train, _ = several(64, known=0.5)
    train.labels[5, 0] = math.nan  # without the label: it trains on what else it has
    validation, _ = several(32, seed=1)
    fitted = fit_several(tmp_path, train, validation)
    logits = predict_logits(fitted.network, validation.images, batch_size=32)
    assert logits.shape == (32, 2)
    for column in range(2):
        assert roc_auc_score(validation.labels[:, column], logits[:, column]) > 0.95
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, validation.labels.double())
    assert float(loss) == pytest.approx(fitted.validation["validation_log_loss"], abs=1e-5)


def test_a_missing_label_has_no_gradient_and_no_weight():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    module = Classifier(network, config().training, steps=1, findings=2)
    module.log = lambda *_, **__: None
    images = torch.rand(3, 1, 2, 2)
    targets = torch.tensor([[1.0, math.nan], [0.0, math.nan], [math.nan, 1.0]])
    batch = Batch(images, targets, torch.zeros(3, 0), targets, torch.arange(3))
    loss = module.training_step(batch, 0)
    logits = network(images)
    known = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.stack([logits[0, 0], logits[1, 0], logits[2, 1]]), torch.tensor([1.0, 0.0, 1.0])
    )
    assert float(loss.detach()) == pytest.approx(float(known.detach()))
    (gradient,) = torch.autograd.grad(loss, logits_of := network[1].weight, retain_graph=True)
    alone = torch.autograd.grad(known, logits_of)[0]
    torch.testing.assert_close(gradient, alone)


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 4), (8, 4), (25, 7)])
def test_few_cases_run_more_epochs_until_enough_steps_are_made(tmp_path, min_steps, epochs):
    settings = config(min_steps=min_steps, early_stopping=None)  # 4 steps an epoch
    assert fit(blobs(32), None, settings, folder=tmp_path, tracker=NullTracker()).epochs == epochs


def test_each_epoch_is_told_in_a_line_with_loss_auroc_and_the_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    place = NetworkPlace(2, 3)
    fitted = fit(blobs(16), blobs(8, seed=1), config(max_epochs=4), folder=tmp_path, tracker=NullTracker(), place=place)
    lines = capsys.readouterr().err.splitlines()
    pattern = r"network 2 of 3, epoch: \d of 4, loss \d\.\d{3}, validation AUROC \d\.\d{3}, \d+ s left"
    assert len(lines) == 4
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert [set(epoch) for epoch in fitted.history] == [{"train_loss", "validation_log_loss", "validation_auroc"}] * 4


def test_small_shared_memory_is_said_and_read_around(tmp_path, monkeypatch, capsys):
    from pipeline.training import shared_memory

    usage = shared_memory.shutil.disk_usage("/")
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    settings = config(loader_workers=2)
    fitted = fit(blobs(16), blobs(8), settings, folder=tmp_path / "small", tracker=NullTracker())
    said = capsys.readouterr().err
    assert said.startswith("warning: /dev/shm: 0.0 MB of shared memory are free, and loader processes need")
    assert "--shm-size=2g" in said
    assert "training.loader_workers=0" in said
    monkeypatch.undo()
    usual = fit(blobs(16), blobs(8), settings, folder=tmp_path / "enough", tracker=NullTracker())
    assert "shared memory" not in capsys.readouterr().err
    for small, enough in zip(fitted.network.state_dict().values(), usual.network.state_dict().values(), strict=True):
        assert torch.equal(small, enough)


def test_loader_process_that_found_no_shared_memory_does_not_blame_the_cases(tmp_path, monkeypatch):
    def bus_error(*args, **kwargs):
        raise RuntimeError(
            "DataLoader worker (pid 7) is killed by signal: Bus error. "
            "It is possible that dataloader's workers are out of shared memory."
        )

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", bus_error)
    with pytest.raises(UnfinishedError, match=r"no room in /dev/shm.*--shm-size.*--resume") as caught:
        fit(blobs(16), blobs(8), config(), folder=tmp_path, tracker=NullTracker())
    assert "cases" not in str(caught.value)
