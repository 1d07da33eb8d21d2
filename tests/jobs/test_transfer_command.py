"""``network.weights``: what the command says, refuses, records and leaves behind."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cohorts import run_folder, tiny_config, train_tiny
from safetensors.torch import load_file, save_file

from pipeline.cli import run
from pipeline.config.training import Network
from pipeline.evaluation.predictions import read_predictions
from pipeline.models.networks import build_network
from pipeline.scoring.model_description import read_description

SOURCE = "network.weights_source=random numbers of a test, no licence needed"
FROZEN = ("training.mode=frozen_features", "augmentation={}", "training.early_stopping=null", SOURCE)


def write_weights(path, *, width=4, dimensions=3):
    torch.manual_seed(5)
    save_file(build_network(Network(width=width), dimensions=dimensions).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, cohort_manifest):
    folder = tmp_path_factory.mktemp("frozen")
    write_weights(folder / "start.safetensors")
    config = tiny_config(cohort_manifest, folder)
    return train_tiny(folder, config, "--folds", "3", "network.weights=start.safetensors", *FROZEN)


def test_the_model_is_an_ordinary_one_that_says_where_it_started(frozen):
    description = read_description(run_folder(frozen) / "model")
    start = description.provenance["initial_weights"]
    digest = hashlib.sha256((frozen / "start.safetensors").read_bytes()).hexdigest()
    assert (start["file"], start["sha256"], start["skipped"]) == ("start.safetensors", digest, 2)
    assert start["source"] == SOURCE.partition("=")[2]
    assert description.provenance["config"]["training"]["mode"] == "frozen_features"
    raw = json.loads((run_folder(frozen) / "model" / "model.json").read_text())
    assert not {"weights", "weights_source", "weights_input", "freeze"} & set(raw["network"])
    assert "random numbers of a test" in (run_folder(frozen) / "report.html").read_text()
    for member in description.members:
        weights = load_file(run_folder(frozen) / "model" / member.weights)
        for name, value in load_file(frozen / "start.safetensors").items():
            assert name.startswith("head.3") or torch.equal(weights[name], value)


def test_scoring_says_what_the_folds_networks_say_on_average(frozen, cohort_manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(frozen)
    model = run_folder(frozen) / "model"
    assert run(["score", str(model), str(cohort_manifest), "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet").set_index("case_id")
    judged = read_predictions(run_folder(frozen) / "predictions.parquet").frame.query("split == 'test'")
    judged = judged.set_index("case_id")
    assert (rows["status"] != "failed").all()
    both = np.corrcoef(rows.loc[judged.index, "logit"], judged["logit"])[0, 1]
    assert both > 0.9


def test_fine_tuning_prints_what_became_of_the_file(cohort_manifest, tmp_path, capsys):
    write_weights(tmp_path / "start.safetensors")
    settings = ("network.weights=start.safetensors", SOURCE, "network.freeze=1", "training.layer_decay=0.7")
    folder = train_tiny(tmp_path, tiny_config(cohort_manifest, tmp_path), *settings, "training.max_epochs=3")
    printed = capsys.readouterr().out
    assert "network.weights: start.safetensors, SHA-256 " in printed
    assert "tensors loaded (the same names), 0 of them renamed; 2 skipped; 0 random" in printed
    assert "  skipped: head.N (2): the head of another task" in printed
    (weights,) = (run_folder(folder) / "model").glob("*.safetensors")
    learnt, start = load_file(weights), load_file(tmp_path / "start.safetensors")
    assert torch.equal(learnt["stem.0.weight"], start["stem.0.weight"])
    assert not torch.equal(learnt["stages.0.body.0.weight"], start["stages.0.body.0.weight"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["network.weights=start.safetensors"], "weights_source is missing; say where the weights are from"),
        (["network.weights=none.pth", SOURCE], "network.weights: no such file: "),
        (["network.weights=wide.safetensors", SOURCE], "fits 0% of the weights of 'compact' in 3D"),
        (["network.weights=flat.safetensors", SOURCE], "fits 1% of the weights of 'compact' in 3D"),
        (["network.freeze=2"], "freeze has no meaning without weights"),
        ([SOURCE], "weights_source has no meaning without weights"),
        (["network.weights=start.safetensors", SOURCE, "network.freeze=6"], "6 stages leave nothing to learn"),
        (["training.mode=frozen_features"], "'frozen_features' needs the weights"),
        (
            ["training.mode=frozen_features", "network.weights=start.safetensors", SOURCE, "training.ema_decay=0.9"],
            "set augmentation={} training.early_stopping=null training.ema_decay=0",
        ),
        (
            ["network.weights=start.safetensors", SOURCE, "network.weights_input=imagenet"],
            "'imagenet' is of 3 channels, and the first layer of",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_any_scan_is_read(
    settings, says, cohort_manifest, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.workflow.learning.run.prepare_cohort", None)  # a call would be another error
    write_weights(tmp_path / "start.safetensors")
    write_weights(tmp_path / "wide.safetensors", width=5)
    write_weights(tmp_path / "flat.safetensors", dimensions=2)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(cohort_manifest, tmp_path)))
    assert run(["train", "tiny.yaml", *settings]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_file_of_that_name_does_not_go_on_with_a_run(cohort_manifest, tmp_path, monkeypatch, capsys):
    write_weights(tmp_path / "start.safetensors")
    settings = ["network.weights=start.safetensors", *FROZEN]
    folder = run_folder(train_tiny(tmp_path, tiny_config(cohort_manifest, tmp_path), *settings))
    (folder / "summary.txt").unlink()  # as if it had not ended
    monkeypatch.chdir(tmp_path)
    save_file({**load_file("start.safetensors"), "more": torch.zeros(1)}, "start.safetensors")
    assert run(["train", "tiny.yaml", "--resume", str(folder), *settings]) == 2
    assert "the weights' digest was" in capsys.readouterr().err
