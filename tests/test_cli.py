"""The command: quick, one clear line for every mistake, the right exit code."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from cohorts import tiny_config
from tiny_models import write_manifest, write_model, write_scans

from pipeline.cli import run


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from pipeline.cli import run; run(['--help']); "
        "heavy = {'torch', 'monai', 'mlflow', 'lightning', 'pandas', 'sklearn'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in (
        "init",
        "demo-data",
        "train",
        "evaluate",
        "score",
        "ui",
        "import",
        "check",
        "promote",
        "rollback",
        "recalibrate",
        "lesions",
        "plan",
    ):
        assert command in done.stdout


HEAVY = ("torch", "monai", "mlflow", "lightning", "pandas", "sklearn", "scipy.stats", "scipy.ndimage", "matplotlib")


def imported(code: str, names: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of these modules a process holds after running the code."""
    shown = f"\nimport sys; print('HEAVY', *sorted({set(names)} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + shown], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("HEAVY")]
    return line.split()[1:]


def test_scoring_without_tracking_leaves_everything_heavy_to_its_workers(tmp_path):
    write_model(tmp_path / "model")
    write_scans(tmp_path / "scans", 2)
    manifest = write_manifest(tmp_path / "scans")
    arguments = ["score", str(tmp_path / "model"), str(manifest), "--out", str(tmp_path / "out"), "--no-track"]
    assert imported(f"from pipeline.cli import run; assert run({arguments}) == 0") == ["pandas"]  # pyarrow's doing
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == 2


def test_the_server_of_the_workers_starts_before_a_command_line_is_parsed():
    code = """
import sys
import pipeline.scoring.engines.worker_server as server
import pipeline.cli
server.start_server_for = lambda words: print("HEAVY", *sorted({"typer", "pipeline.jobs.score"} & set(sys.modules)),
    *words, file=sys.stderr)
sys.argv = ["malignancy", "score", "--help"]
pipeline.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "HEAVY score --help\n"
    assert "Score every scan" in done.stdout


def test_a_worker_of_the_command_imports_what_it_computes_with():
    names = (*HEAVY, "nibabel", "pydicom", "scipy.special", "sympy", "torch._decomp", "torch._dynamo")
    assert imported("import pipeline.scoring.engines.worker_preload", names) == ["monai", "nibabel", "torch"]


def test_checking_files_needs_no_network(tmp_path):
    write_scans(tmp_path / "scans", 2)
    assert imported(f"from pipeline.cli import run; assert run(['check', {str(tmp_path / 'scans')!r}]) == 0") == []


def test_a_table_is_judged_before_training_imports_anything_that_trains(tmp_path, cohort_manifest):
    config = tiny_config(cohort_manifest, tmp_path)
    config["evaluation"] |= {"baseline_columns": ["size_mm"]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    code = f"from pipeline.cli import run; assert run(['train', {str(tmp_path / 'c.yaml')!r}]) == 2"
    assert imported(code, ("torch", "monai", "mlflow", "lightning", "matplotlib")) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command"),
        (["train"], "Missing"),
        (["train", "none.yaml"], "none.yaml: no such configuration file"),
        (["score", "models", "none", "--out", "o"], "none: no such manifest, folder or scan"),
        (["score", "model", "none.csv", "--out", "o"], "none.csv: E_NOT_FOUND: no such table"),
        (["score", "m", "i", "--out", "o", "--workers", "0"], "workers"),
        (["evaluate", "model", "--out", "o"], "give MODEL and MANIFEST, or --predictions FILE"),
        (["import", "medmnist", "a.npz", "out"], "positive"),
        (["promote", "models:/a/1"], "Missing option"),
        (["promote", "models:/a/1", "--on", "m.csv", "--force"], "--force and --reason TEXT belong together"),
        (["promote", "models:/a/1", "--on", "none.csv"], "none.csv: E_NOT_FOUND"),
        (["init", "none"], "none: no such folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {"manifest": "none.csv"}}, "c.yaml: data.manifest: no such file: "),
        ({"evaluation": {"baseline_columns": ["size_mm"]}}, "has no column 'size_mm' (extra columns: diameter_mm)"),
        ({"training": {"max_epochs": 1}}, "patience: 2 is not below training.max_epochs (1)"),
    ],
)
def test_training_mistake_stops_before_anything_is_written(
    change, says, capsys, tmp_path, monkeypatch, cohort_manifest
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(cohort_manifest, tmp_path)
    for section, values in change.items():
        config[section] |= values
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert run(["train", "c.yaml"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_model_that_is_none_is_exit_2(capsys, tmp_path, monkeypatch, cohort_manifest):
    monkeypatch.chdir(tmp_path)
    assert run(["score", "nowhere", str(cohort_manifest), "--out", "o"]) == 2
    assert "nowhere: holds no model.json" in capsys.readouterr().err
    assert run(["score", "models:/none@champion", str(cohort_manifest), "--out", "o"]) == 2
    assert "models:/none@champion: no such model" in capsys.readouterr().err
    assert run(["score", "models:/none", str(cohort_manifest), "--out", "out"]) == 2
    assert "models:/none: names no version; give models:/none@champion, or models:/none/1" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_version_is_one_everywhere(capsys):
    assert run(["--version"]) == 0
    version = capsys.readouterr().out.split()[-1]
    root = Path(__file__).parents[1]
    assert version == tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}\n" in (root / "CITATION.cff").read_text()
