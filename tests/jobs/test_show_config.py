"""``malignancy config``: every key of a configuration, as a configuration again."""

from pathlib import Path

import pytest

from pipeline.cli import run
from pipeline.config.file import load_training_config

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_printed_resolves_to_the_same(path, tmp_path, capsys):
    overrides = ["seed=7", "training.learning_rate=0.00001"]
    assert run(["config", str(path), *overrides]) == 0
    (tmp_path / "whole.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    asked, whole = load_training_config(path, overrides), load_training_config(tmp_path / "whole.yaml")
    assert whole == asked
    assert whole.model_fields_set >= {"seed", "training", "tracking", "evaluation"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_fit_a_page(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 72


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert run(["config", str(SHIPPED[0]), "training.epochs=3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["config", str(tmp_path / "none.yaml")]) == 2
