#!/usr/bin/env python3
"""What the sigmoid is worth, at the output and in hidden units: variants of one configuration, on identical splits.

    python benchmarks/ablation.py [configs/ablation.yaml] [section.key=value ...] --seeds 0 1 2

Each variant changes the head or the activation of hidden units and nothing else; every variant is trained with every
seed (weights, order and augmentation; the splits stay). Each training is an MLflow run below one parent. The table
gives means over seeds with their range: AUROC and Brier score (after calibration) on the test split, the epoch in which
the mean training loss first falls below ``--loss``, and the norm of the first layer's gradient, before clipping, in the
first, middle and last epoch. Prints the table as Markdown, and last one JSON line; ``ratio`` is the first layer's
gradient in the first epoch with sigmoid hidden units over that with relu.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import assign_splits
from pipeline.config.experiment import Config
from pipeline.config.file import load_config
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.workflow.cohort import Cohort, prepare_cohort, require_classes_in_splits
from pipeline.workflow.learning.experiment import resolve_columns
from pipeline.workflow.learning.learn import learn

VARIANTS = {
    "sigmoid head, relu": {"head": "sigmoid", "activation": "relu"},
    "softmax head, relu": {"head": "softmax", "activation": "relu"},
    "sigmoid head, silu": {"head": "sigmoid", "activation": "silu"},
    "sigmoid head, gelu": {"head": "sigmoid", "activation": "gelu"},
    "sigmoid head, tanh": {"head": "sigmoid", "activation": "tanh"},
    "sigmoid head, sigmoid": {"head": "sigmoid", "activation": "sigmoid"},
}


@dataclass(frozen=True)
class Outcome:
    """One training.

    Attributes:
        epochs_to_loss: counted from 1; None when the loss was never that low.
        gradients: norm at the first layer, mean over each epoch's steps.
    """

    auroc: float
    brier_score: float
    epochs_to_loss: int | None
    gradients: tuple[float, ...]


@dataclass
class History:
    """Keeps each epoch's metrics and passes them on."""

    run: TrackedRun

    def __post_init__(self) -> None:
        self.epochs: dict[int, Mapping[str, float]] = {}

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Record named numbers of one epoch."""
        self.epochs[step] = values
        self.run.metrics(values, step=step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/ablation.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--loss", type=float, default=0.5, help="mean training loss of an epoch (log loss)")
    args = parser.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    manifest = read_manifest(config.data.manifest)
    manifest.require_usable()
    config = resolve_columns(config, manifest)
    splits = assign_splits(manifest, config.data.splits, seed=config.data.split_seed)
    cohort = prepare_cohort(manifest, splits.of, config)
    require_classes_in_splits(cohort, manifest)
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    with open_run(config.tracking, name=f"{config.name}: ablation", tags={"kind": "ablation"}) as parent:
        parent.params(config.model_dump(mode="json"))
        for seed in args.seeds:
            for name, changes in VARIANTS.items():
                network = config.network.model_copy(update=changes)
                variant = config.model_copy(update={"network": network, "seed": seed})
                outcomes[name].append(run_variant(cohort, variant, f"{name}, seed {seed}", parent, args.loss))
                print(f"{name}, seed {seed}: AUROC {outcomes[name][-1].auroc:.3f}", flush=True)
        table = markdown(outcomes, args.loss)
        parent.text(table, "ablation.md")
    print(f"\n{table}\n")
    first = {name: np.mean([each.gradients[0] for each in some]) for name, some in outcomes.items()}
    ratio = first["sigmoid head, sigmoid"] / first["sigmoid head, relu"]
    print(json.dumps({"ratio": float(ratio), **{name: list(map(asdict, some)) for name, some in outcomes.items()}}))


def run_variant(cohort: Cohort, config: Config, name: str, parent: TrackedRun, loss: float) -> Outcome:
    """Train in a run below the parent, calibrate, judge on the test split."""
    tags = {"kind": "ablation", "mlflow.parentRunId": parent.run_id}
    with open_run(config.tracking, name=name, tags=tags) as run, tempfile.TemporaryDirectory() as folder:
        run.params({"network": config.network.model_dump(mode="json"), "seed": config.seed})
        history = History(run)
        _, judgement = learn(cohort, config, Path(folder), history)
        run.metrics(judgement.evaluation.metrics("test_"))
    epochs = [history.epochs[step] for step in sorted(history.epochs)]
    reached = [number for number, values in enumerate(epochs, 1) if values["train_loss"] < loss]
    return Outcome(
        auroc=judgement.evaluation["auroc"].estimate,
        brier_score=judgement.evaluation["brier_score"].estimate,
        epochs_to_loss=min(reached, default=None),
        gradients=tuple(values["first_layer_gradient"] for values in epochs),
    )


def markdown(outcomes: Mapping[str, list[Outcome]], loss: float) -> str:
    """The table: means over seeds, with their range."""
    gradient = "gradient at the first layer: first, middle, last epoch"
    lines = [f"| head, hidden units | AUROC | Brier score | epochs to loss {loss:g}, by seed | {gradient} |"]
    lines.append("|---|---|---|---|---|")
    for name, some in outcomes.items():
        epochs = ", ".join("never" if each.epochs_to_loss is None else str(each.epochs_to_loss) for each in some)
        gradients = np.array([each.gradients for each in some])
        at = (0, gradients.shape[1] // 2, -1)
        norms = ", ".join(f"{gradients[:, place].mean():.3g}" for place in at)
        auroc, brier = spread([each.auroc for each in some]), spread([each.brier_score for each in some])
        lines.append(f"| {name} | {auroc} | {brier} | {epochs} | {norms} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
