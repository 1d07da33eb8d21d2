"""Provenance of a model: data, configuration, code, versions, seeds."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cases.splits import Splits
from pipeline.config.detection import DetectionConfig
from pipeline.config.experiment import Config
from pipeline.redaction import map_texts, redact
from pipeline.tracking.registry import package_versions
from pipeline.training.initial_weights import InitialWeights
from pipeline.workflow.learning.experiment import Experiment

_ABSOLUTE = re.compile(r"(?P<scheme>sqlite:///|file://)?/")


def provenance(
    experiment: Experiment, dataset_digest: str, run_id: str, *, weights: InitialWeights | None = None
) -> dict[str, Any]:
    """Provenance in ``model.json``, with which a training can be repeated.

    Args:
        experiment: configuration, table and splits.
        dataset_digest: of the data as used.
        run_id: MLflow's.
        weights: that the networks started from; None where they started at random.
    """
    digests = {"manifest_sha256": experiment.manifest.digest, "dataset_sha256": dataset_digest}
    started = {} if weights is None else {"initial_weights": weights.to_json()}
    return started | origin(experiment.config, experiment.splits, run_id, digests)


def origin(config: Config | DetectionConfig, splits: Splits, run_id: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Provenance of any trained model.

    Args:
        config: of the training.
        splits: of its cases or scans.
        run_id: MLflow's.
        digests: of its data, by name.
    """
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": public_config(config),
        **digests,
        "split_sha256": splits.digest,
        "split_source": splits.source,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "seed": config.seed,
        "mlflow_run_id": run_id,
    }


def public_config(config: Config | DetectionConfig) -> dict[str, Any]:
    """A configuration as it may be published with a model."""
    return public_values(config.model_dump(mode="json"))


def public_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values as they may be published with a model: files by name alone, URLs without passwords.

    The folder of a table may reveal users and institutions; its digest, which is kept too, identifies the table.
    """
    public: dict[str, Any] = map_texts(dict(values), _public)
    return public


def _public(text: str) -> str:
    absolute = _ABSOLUTE.match(text)
    return f"{absolute['scheme'] or ''}{Path(text).name}" if absolute else redact(text)


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with ``-dirty`` for changed files; None when installed."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
