"""``torchrun ... -m pipeline train``: several processes, one run, and the first alone talks to MLflow."""

import os
import subprocess
import sys

import pytest
import yaml
from cohorts import run_folder, tiny_config
from mlflow.tracking import MlflowClient

# Python imports this first: in every process but the first, MLflow cannot be imported.
ONLY_THE_FIRST_HAS_MLFLOW = """
import os, sys
if os.environ.get("RANK", "0") != "0":
    sys.modules["mlflow"] = None
"""


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path, cohort_manifest, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(ONLY_THE_FIRST_HAS_MLFLOW)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(cohort_manifest, tmp_path)))
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path / "first"), *sys.path])}
    second = {**environment, "RANK": "1"}
    assert (
        subprocess.run(
            [sys.executable, "-c", "import mlflow"], env=second, check=False, stderr=subprocess.DEVNULL
        ).returncode
        == 1
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = ["training.devices=2", "training.accelerator=cpu", "training.early_stopping=null"]
    averaged = ["training.ema_decay=0.9", "training.precise_batch_norm=true"]
    done = subprocess.run(
        [*torchrun, "-m", "pipeline", "train", "tiny.yaml", *settings, *averaged],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model: ") == 1
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (only,) = client.search_runs(experiments)
    assert only.info.status == "FINISHED"
    assert only.data.metrics["test_auroc"] > 0.5
    assert (run_folder(tmp_path) / "model" / "model.json").exists()
