#!/usr/bin/env python3
"""Which stage of a pretrained residual network to keep: the AUROC of each stage's features, over folds by patient.

    python benchmarks/frozen_stages.py configs/lidc_slices.yaml network.name=i3resnet152 network.weights=FILE \
        network.weights_source=TEXT network.dropout=0 [section.key=value ...] [--within 0] [--folds 4]

For choosing ``network.stages`` and ``network.pooling`` on cases that are not reported: with ``--within N`` those that
fold N of five leaves to training. Features are computed once, of the image as it is (no mirror images); a ridge
regression on them gives a score, and a logistic regression joins it with ``data.covariates``; both are judged on folds
that they were not fitted on. Beside it the same network with random weights, its batch normalisation fitted to the
images: what the pretraining adds. Prints a table and last one JSON line; ``ratio`` is the best AUROC over the best of
random weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from cross_validation import leave_out_fold
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import assign_folds
from pipeline.config.experiment import Config
from pipeline.config.file import load_config
from pipeline.config.training import RESIDUAL_NETWORKS
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.metrics import auroc
from pipeline.models.networks import build_network
from pipeline.models.pretrained import load_pretrained
from pipeline.workflow.cohort import Cohort, covariate_values, prepare_cohort

POOLINGS = ("mean", "center")
PENALTIES = np.logspace(0, 6, 13)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--within", type=int, choices=range(5), help="without the patients of this one of five folds")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    args = parser.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    if config.network.weights is None or config.network.name not in RESIDUAL_NETWORKS:
        raise SystemExit(f"network: expected weights of one of {', '.join(RESIDUAL_NETWORKS)}; name both")
    manifest = read_manifest(config.data.manifest, config.data.extra_columns)
    manifest.require_usable()
    if args.within is not None:
        manifest = leave_out_fold(manifest, args.within, seed=config.data.split_seed)
    splits = assign_folds(manifest, args.folds, seed=config.data.split_seed)
    report(config, prepare_cohort(manifest, splits.of, config), args.seed)


def report(config: Config, cohort: Cohort, seed: int) -> None:
    """Print the table and the JSON line."""
    images = torch.stack([torch.from_numpy(usable.input.voxels) for usable in cohort.usable])
    size = f"{len(images)} cases of {len({usable.case.patient_id for usable in cohort.usable})} patients"
    shape = " x ".join(map(str, images.shape[2:]))
    table = Table("weights", "stages", "pooling", "features", "AUROC", "with covariates", title=f"{size}, {shape}")
    best = {}
    for weights, network in (("file", pretrained(config)), ("random", untrained(config, images, seed))):
        begin = time.process_time()
        features = stage_features(network, images, config)
        spent = time.process_time() - begin
        found = {place: judge(values, cohort, config) for place, values in features.items()}
        for (stages, pooling), (alone, joined) in found.items():
            width = str(features[stages, pooling].shape[1])
            table.add_row(weights, str(stages), pooling, width, f"{alone:.4f}", f"{joined:.4f}")
        best[weights] = max(joined for _, joined in found.values())
        print(f"{weights}: features took {spent:.0f} CPU seconds", flush=True)
    Console(width=120).print(table)
    print(json.dumps({"ratio": best["file"] / best["random"], "best": best}))


def whole_network(config: Config, pooling: str = "mean") -> nn.Module:
    """The configured network with all its stages, without average over mirror images."""
    changes = {"stages": None, "average_flips": False, "average_turns": False, "pooling": pooling}
    return build_network(config.network.model_copy(update=changes), dimensions=config.preprocessing.dimensions)


def pretrained(config: Config) -> nn.Module:
    network = whole_network(config)
    load_pretrained(network, config.network, dimensions=config.preprocessing.dimensions)
    return network.eval()


@torch.inference_mode()
def untrained(config: Config, images: Tensor, seed: int) -> nn.Module:
    """Random weights; means and variances of batch normalisation are those of some images."""
    torch.manual_seed(seed)
    network = whole_network(config).train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None  # the mean of all batches
    network(images[: 4 * BATCH])
    return network.eval()


@torch.inference_mode()
def stage_features(network: nn.Module, images: Tensor, config: Config) -> dict[tuple[int, str], FloatArray]:
    """Features (N, D) of each stage under each pooling."""
    pools = {pooling: whole_network(config, pooling).get_submodule("avgpool") for pooling in POOLINGS}
    parts: dict[tuple[int, str], list[Tensor]] = {}

    def keep(stage: int, features: Tensor) -> None:
        for pooling, pool in pools.items():
            parts.setdefault((stage, pooling), []).append(pool(features).flatten(1))

    for stage in range(1, 5):
        network.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _module, _images, features, stage=stage: keep(stage, features)
        )
    for batch in images.split(BATCH):
        network(batch)
    return {place: torch.cat(values).double().numpy() for place, values in parts.items()}


def judge(features: FloatArray, cohort: Cohort, config: Config) -> tuple[float, float]:
    """AUROC of the features' score, and of it with the covariates, out of fold."""
    labels = np.array([usable.case.label for usable in cohort.usable])
    names = sorted({usable.split for usable in cohort.usable})
    folds = PredefinedSplit([names.index(usable.split) for usable in cohort.usable])
    ridge = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    score = cross_val_predict(ridge, features, labels, cv=folds)
    scales, values = config.data.covariates.values(), covariate_values(cohort.usable, config).T
    columns = [np.log(column) if scale == "log" else column for column, scale in zip(values, scales, strict=True)]
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    joined = cross_val_predict(
        logistic, np.column_stack([score, *columns]), labels, cv=folds, method="decision_function"
    )
    return auroc(labels, score), auroc(labels, joined)


if __name__ == "__main__":
    main()
