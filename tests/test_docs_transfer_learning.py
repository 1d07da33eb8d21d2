"""docs/how-to/transfer-learning.md: every command is run, and prints what the page shows."""

import re
import shutil

import pytest
import torch
from doc_commands import DOCS, commands, shows
from safetensors.torch import save_file
from shared_data import ROOT

from pipeline.cli import run
from pipeline.config.file import load_config
from pipeline.models.networks import build_network
from pipeline.models.weight_names import styles_of

TEXT = (DOCS / "how-to" / "transfer-learning.md").read_text(encoding="utf-8")
PAGE = list(commands(DOCS / "how-to" / "transfer-learning.md"))
SHORT = {"train": ["training.max_epochs=4", "evaluation.resamples=100"], "pretrain": ["training.max_epochs=4"]}


@pytest.mark.slow
def test_every_command_says_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    torch.manual_seed(0)
    network = load_config(ROOT / "configs" / "smoke.yaml").network
    save_file(build_network(network, dimensions=3).state_dict(), tmp_path / "start.safetensors")
    assert [arguments[0] for arguments, _ in PAGE] == ["demo-data", "train", "train", "pretrain"]
    for arguments, output in PAGE:
        # Four epochs tell nothing about calibration: 1 says that it is not shown.
        assert run([*arguments, *SHORT.get(arguments[0], [])]) in (0, 1)
        printed = capsys.readouterr().out
        assert shows(output, printed), printed


def test_networks_that_the_page_names_are_built_and_their_styles_known():
    table = TEXT.split("| weights of |")[1].split("\n\n")[0]
    named = set(re.findall(r"`((?:(?:i3)?resnet|densenet|efficientnet)\w+)`", table))
    assert named == {
        "resnet10",
        "resnet18",
        "resnet34",
        "resnet50",
        "i3resnet152",
        "densenet121",
        "efficientnet_b0",
        "efficientnet_lite0",
    }
    assert all(len(styles_of(name)) > 1 for name in named)
