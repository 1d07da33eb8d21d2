"""Probability that a scan holds a malignant lesion, from its candidates: a leaky noisy-or, fitted on held-out scans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import FloatArray, as_labels, as_scores

FEWEST_SCANS = 5  # of each class, to fit two numbers
MOST_APART = 0.05  # of the bounds of a probability whose middle is still given
LEAST_SCORED = 0.5  # share of the candidates; a scan of which most are refused is unlike what the classifier knows
_PRIOR = 0.5  # scans added to either side of leak and weight, so that neither is ever 0 or 1
_JSON_KEYS = {"classifier_digest", "leak", "weight"}
_DIGEST = re.compile(r"[0-9a-f]{8,128}")


@dataclass(frozen=True)
class ScanBounds:
    """Between which values the probability of a scan lies when some of its candidates could not be scored.

    Attributes:
        lower: where the candidates that were not scored are surely benign, in [0, 1].
        upper: where they are surely malignant; the same as ``lower`` where all were scored.
        scored_share: of the candidates, in [0, 1]; 1 where there is none.
    """

    lower: float
    upper: float
    scored_share: float = 1.0

    @property
    def probability(self) -> float | None:
        """The middle, where at least half of the candidates were scored and the bounds lie within 0.05; else None.

        As long as the noisy-or holds, it is off by at most 0.025.
        """
        is_known = self.scored_share >= LEAST_SCORED and self.upper - self.lower <= MOST_APART
        return (self.lower + self.upper) / 2 if is_known else None


@dataclass(frozen=True)
class ScanProbability:
    """Leaky noisy-or over the candidates of a scan.

    ``P = 1 - (1 - leak) * product over candidates of (1 - weight * nodule * malignant)``: the scan is malignant
    when any of its candidates is a malignant lesion, independently of each other, or when one was not found.

    Attributes:
        leak: probability that a scan without candidates is malignant, in (0, 1).
        weight: share of a candidate's probability that counts, in (0, 1]; below 1 where several candidates of a scan
            are alike, or the two stages together are overconfident.
        classifier_digest: model digest of the classifier whose probabilities it was fitted on.

    Source: Pearl, 1988 (noisy-or with a leak); Liao et al., 2019 (for nodules of a CT).
    """

    leak: float
    weight: float
    classifier_digest: str

    def __post_init__(self) -> None:
        if not 0.0 < self.leak < 1.0 or not 0.0 < self.weight <= 1.0:
            raise CalibrationError(
                f"scan probability: leak {self.leak}, weight {self.weight}; expected leak in (0, 1), weight in (0, 1]"
            )
        if not _DIGEST.fullmatch(self.classifier_digest):
            raise CalibrationError("scan probability: classifier_digest is not a digest; expected hexadecimal digits")

    def apply(self, nodule: npt.ArrayLike, malignant: npt.ArrayLike) -> float:
        """Probability that the scan holds a malignant lesion, in [leak, 1].

        Args:
            nodule: calibrated probability of each candidate that it is a lesion, shape (n,); n may be 0.
            malignant: calibrated probability of each candidate that it is malignant if it is a lesion, shape (n,).

        Raises:
            CalibrationError: when a value lies outside [0, 1], or their numbers differ.

        Example:
            >>> ScanProbability(leak=0.1, weight=1.0, classifier_digest="0" * 64).apply([0.8], [0.5])
            0.46
        """
        products = candidate_products(nodule, malignant)
        return float(-np.expm1(np.log1p(-self.leak) + np.log1p(-self.weight * products).sum()))

    def bounds(self, nodule: Sequence[float], malignant: Sequence[float | None]) -> ScanBounds:
        """Lowest and highest probability of the scan, whatever the candidates are that could not be scored.

        Args:
            nodule: as of ``apply``.
            malignant: as of ``apply``; None for a candidate that could not be scored.

        Raises:
            CalibrationError: as of ``apply``.

        Example:
            >>> ScanProbability(leak=0.1, weight=1.0, classifier_digest="0" * 64).bounds([0.8, 0.5], [0.5, None])
            ScanBounds(lower=0.46, upper=0.73, scored_share=0.5)
        """
        lower, upper = (
            self.apply(nodule, [unknown if value is None else value for value in malignant]) for unknown in (0.0, 1.0)
        )
        return ScanBounds(lower, upper, _scored_share(malignant))

    def describe(self) -> str:
        """One line for summaries and reports."""
        return f"leaky noisy-or, leak {self.leak:.3g}, weight {self.weight:.3g}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``model.json``; ``from_json`` gives back an equal one."""
        return {"classifier_digest": self.classifier_digest, "leak": self.leak, "weight": self.weight}

    @classmethod
    def from_json(cls, value: Any) -> ScanProbability:
        """Read what ``to_json`` wrote.

        Raises:
            CalibrationError: for anything else.
        """
        if not isinstance(value, Mapping) or set(value) != _JSON_KEYS:
            raise CalibrationError(f"scan probability: expected an object with {', '.join(sorted(_JSON_KEYS))}")
        numbers = (value["leak"], value["weight"])
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            raise CalibrationError("scan probability: leak and weight are not numbers")
        if not isinstance(value["classifier_digest"], str):
            raise CalibrationError("scan probability: classifier_digest is not text")
        return cls(float(numbers[0]), float(numbers[1]), value["classifier_digest"])


def candidate_products(nodule: npt.ArrayLike, malignant: npt.ArrayLike) -> FloatArray:
    """Probability of each candidate that it is a malignant lesion, shape (n,).

    Raises:
        CalibrationError: when a value lies outside [0, 1], or their numbers differ.
    """
    first, second = (as_scores(values, name="candidates", error=CalibrationError) for values in (nodule, malignant))
    if first.shape != second.shape or first.ndim != 1:
        raise CalibrationError(
            f"candidates: {first.shape} probabilities of a lesion and {second.shape} of malignancy; expected as many"
        )
    if any(values.size and (values.min() < 0.0 or values.max() > 1.0) for values in (first, second)):
        raise CalibrationError("candidates: a probability lies outside [0, 1]; pass probabilities, not logits")
    return first * second


def nearly_known_products(nodule: Sequence[float], malignant: Sequence[float | None]) -> FloatArray | None:
    """The products of a scan for fitting; a candidate that could not be scored counts as half malignant.

    Args:
        nodule: probability of each candidate that it is a lesion, shape (n,).
        malignant: probability of each candidate that it is malignant if it is a lesion; None for one not scored.

    Returns:
        Shape (n,); None where the candidates that were not scored could move the scan's probability by more than 0.05,
        whatever leak and weight are, or are more than half of all.

    Raises:
        CalibrationError: when a value lies outside [0, 1], or their numbers differ.
    """
    products = candidate_products(nodule, [0.5 if value is None else value for value in malignant])
    unknown = [lesion for lesion, value in zip(nodule, malignant, strict=True) if value is None]
    is_known = _scored_share(malignant) >= LEAST_SCORED and 1.0 - np.prod(1.0 - np.array(unknown)) <= MOST_APART
    return products if is_known else None


def _scored_share(malignant: Sequence[float | None]) -> float:
    return sum(value is not None for value in malignant) / len(malignant) if malignant else 1.0


def fit_scan_probability(
    products: Sequence[npt.ArrayLike], labels: npt.ArrayLike, *, classifier_digest: str
) -> ScanProbability:
    """Fit leak and weight by maximum likelihood on scans that neither stage was trained on.

    Half a scan is added to either side of both (the mode under Beta(1.5, 1.5) priors), so that the leak is never 0,
    which would mean that a scan without candidates cannot be malignant.

    Args:
        products: of each scan the `candidate_products` of its candidates, none for some.
        labels: 1 where the scan holds a malignant lesion, else 0, shape (scans,).
        classifier_digest: model digest of the classifier.

    Raises:
        CalibrationError: with fewer than 5 scans of a class, or a product outside [0, 1].
    """
    from scipy.optimize import minimize

    truth = as_labels(labels, error=CalibrationError)
    parts = [as_scores(values, name="candidates", error=CalibrationError).reshape(-1) for values in products]
    if len(parts) != truth.size:
        raise CalibrationError(f"scan probability: {len(parts)} scans and {truth.size} labels; expected as many")
    malignant, benign = int(truth.sum()), int((truth == 0).sum())
    if min(malignant, benign) < FEWEST_SCANS:
        raise CalibrationError(
            f"scan probability: {malignant} malignant and {benign} benign calibration scans, expected at least "
            f"{FEWEST_SCANS} of each"
        )
    every = np.concatenate([*parts, np.zeros(0)])
    if every.size and (every.min() < 0.0 or every.max() > 1.0):
        raise CalibrationError("scan probability: a product lies outside [0, 1]; pass products of probabilities")
    owners = np.repeat(np.arange(truth.size), [part.size for part in parts])

    def negative_log_posterior(parameters: FloatArray) -> float:
        log_kept = -np.logaddexp(0.0, parameters[0])  # log(1 - leak)
        weight = 1.0 / (1.0 + np.exp(-parameters[1]))
        log_benign = log_kept + np.bincount(owners, weights=np.log1p(-weight * every), minlength=truth.size)
        log_malignant = np.log(-np.expm1(log_benign))
        likelihood = np.where(truth == 1, log_malignant, log_benign).sum()
        # log x + log(1 - x) of x = sigmoid(t) is t - 2 log(1 + exp(t))
        prior = _PRIOR * (parameters - 2.0 * np.logaddexp(0.0, parameters)).sum()
        return float(-(likelihood + prior))

    # Both within 1e-6 of 0 and 1: beyond, the prior alone is 7 nats away.
    solution = minimize(negative_log_posterior, np.array([-2.0, 1.0]), method="L-BFGS-B", bounds=[(-13.8, 13.8)] * 2)
    leak, weight = (1.0 / (1.0 + np.exp(-solution.x))).tolist()
    return ScanProbability(leak=leak, weight=weight, classifier_digest=classifier_digest)
