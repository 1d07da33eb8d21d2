"""Fit the last layer of a frozen network as a logistic regression on its features.

For too few cases to learn features from. The result is an ordinary network, so that everything after the training
(calibration, evaluation, model directory, scoring) is the same as for others.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from pipeline.errors import UsageError
from pipeline.models.networks import build_network, last_linear
from pipeline.training.features import Features, FeatureStore
from pipeline.training.fit import Fitted
from pipeline.training.initial_weights import start_from_weights
from pipeline.training.module import prior_offset

if TYPE_CHECKING:
    from pipeline.training.networks import NetworkTask

_STRENGTHS = np.logspace(-6, 1, 15)  # inverse strengths of the penalty, of features with variance 1
_PARTS = 5
_MOST_STEPS = 2000


@dataclass(frozen=True, eq=False)
class LogisticHead:
    """A linear layer on features.

    Attributes:
        weights: (D,), of the network's features.
        bias: of the logit.
        strength: scikit-learn's C that inner cross-validation chose.
    """

    weights: NDArray[np.float64]
    bias: float
    strength: float


def fit_frozen(tasks: Sequence[NetworkTask]) -> tuple[Fitted, ...]:
    """Fit the last layer for every task, on features that are computed once for all of them.

    Args:
        tasks: of one experiment; each is fitted on its own training cases alone.

    Raises:
        ConfigError: when the weights do not fit the network.
        UsageError: when a class has fewer than two patients, so that no penalty can be chosen.
    """
    config = tasks[0].config
    findings = tasks[0].train.labels.shape[1]
    network = build_network(config.network, dimensions=config.preprocessing.dimensions, outputs=findings)
    start_from_weights(network, config)
    store = FeatureStore(network, config)
    return tuple(_fit_task(task, network, store) for task in tasks)


def _fit_task(task: NetworkTask, network: nn.Module, store: FeatureStore) -> Fitted:
    cases, settings = task.train, task.config.training
    features = store.of(cases)
    balanced = settings.class_balance == "weighted_loss"
    heads = []
    for finding in range(cases.labels.shape[1]):
        labels = cases.labels[:, finding].numpy()
        known = np.isfinite(labels)
        patients = [patient for patient, is_known in zip(cases.patients, known, strict=True) if is_known]
        head = fit_logistic_head(
            features[known], labels[known].astype(np.int64), patients, balanced=balanced, seed=task.config.seed
        )
        heads.append(head)
    task.tracker.metrics({f"penalty_c_{number}": head.strength for number, head in enumerate(heads)}, step=1)
    fitted = with_heads(network, heads)
    offset = prior_offset(cases.labels[:, 0], settings.class_balance)
    return Fitted(network=fitted, best_epoch=1, epochs=1, validation={}, prior_offset=offset)


def fit_logistic_head(
    features: Features, labels: NDArray[np.int64], patients: Sequence[str], *, balanced: bool, seed: int
) -> LogisticHead:
    """Logistic regression with an L2 penalty, whose strength cross-validation by patient chooses by log loss.

    Args:
        features: (N, D); each is brought to variance 1 before it is penalised.
        labels: (N,) 0 or 1.
        patients: (N,), who stay in one part.
        balanced: weigh both classes alike.
        seed: of the division into parts.

    Raises:
        UsageError: when a class has fewer than two patients.
    """
    of_class = [
        len({patient for patient, label in zip(patients, labels, strict=True) if label == value}) for value in (0, 1)
    ]
    parts = min(_PARTS, *of_class)
    if parts < 2:
        raise UsageError(
            f"training.mode: 'frozen_features' chooses its penalty by patients left out, and {of_class[0]} benign and "
            f"{of_class[1]} malignant patients are too few to choose a penalty by; expected at least two of each"
        )
    scaler = StandardScaler().fit(features.astype(np.float64))
    divided = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    regression = LogisticRegressionCV(
        Cs=_STRENGTHS,
        l1_ratios=(0,),
        cv=[
            (train, left_out)
            for train, left_out in divided.split(features, labels, patients)
            if Counter(labels[train].tolist()).keys() == {0, 1}
        ],
        scoring="neg_log_loss",
        class_weight="balanced" if balanced else None,
        max_iter=_MOST_STEPS,
        use_legacy_attributes=False,
    ).fit(scaler.transform(features.astype(np.float64)), labels)
    weights = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - weights @ scaler.mean_)
    return LogisticHead(weights, bias, float(np.ravel(regression.C_)[0]))


def with_heads(network: nn.Module, heads: Sequence[LogisticHead]) -> nn.Module:
    """A copy of the network with its last layer set to a head for each finding, in evaluation mode."""
    fitted = copy.deepcopy(network).eval()
    _, last = last_linear(fitted)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(np.stack([head.weights for head in heads])))
        last.bias.copy_(torch.tensor([head.bias for head in heads]))
    for parameter in fitted.parameters():
        parameter.requires_grad = True  # frozen in this training alone
    return fitted
