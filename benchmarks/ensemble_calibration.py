#!/usr/bin/env python3
"""What calibrating single members does to the calibration of their mean, and whether their agreement can mend it.

    python benchmarks/ensemble_calibration.py [--draws 20] [--cases 20000] [--seed 0]

A calibrator (Platt) is fitted to the logits of single members on cases that each left out, and applied to the mean of
all members on new cases, as training with members or folds does. Members' logits are drawn: what all of them see of a
case, and what each sees alone, so that two members correlate by ``rho`` over cases. Three kinds of study:

* ``normal``: normal logits, of which the label is drawn;
* ``classes``: two classes, each with normal logits;
* ``uneven``: as ``normal``, with members that differ more the farther the logit is from 0.

Five ways, the last four of which look at all members on unlabelled cases that none was fitted on:

* ``plain``: the calibrator as it is;
* ``spread``: its slope times the ratio of the variance of a member's logits to that of their mean;
* ``within``: the same with the variance of a member's logits within the classes;
* ``score``: the conditional score of logistic regression with a known error of measurement (Stefanski & Carroll, 1987),
  the error being the variance that the mean has less than a member;
* ``matched``: the calibrator of the mean that agrees with a member's: over unlabelled cases, the difference of the
  two probabilities is orthogonal to 1 and to the member's logit.

Prints, averaged over draws with a standard error, the calibration slope of the mean on new cases (1 is right), and its
sensitivity and specificity at the threshold at which single members have 95 % sensitivity. Last comes one JSON line;
``ratio`` is the largest distance from 1 of ``plain`` over that of ``matched``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from scipy import optimize

from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.calibration import sigmoid
from pipeline.evaluation.recalibration import fit_recalibration

KINDS, CORRELATIONS, SIZES = ("normal", "classes", "uneven"), (0.7, 0.8, 0.9, 1.0), (3, 5)
WAYS = ("plain", "spread", "within", "score", "matched")
DECIDED = ("sensitivity", "specificity")


def study(
    kind: str, correlation: float, members: int, cases: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Labels (n,) and members' logits (n, members)."""
    if kind == "classes":
        labels = (rng.random(cases) < 0.35).astype(np.int64)
        seen = 1.6 * labels + rng.normal(size=cases)
    else:
        truth = rng.normal(-0.7, 1.6, cases)
        labels = (rng.random(cases) < sigmoid(truth)).astype(np.int64)
        seen = 1.5 * (truth + rng.normal(0.0, 0.8, cases))
    alone = rng.normal(size=(cases, members)) * np.sqrt(seen.var() * (1.0 - correlation) / correlation)
    if kind == "uneven":
        far = np.abs(seen - seen.mean())
        alone *= (far / np.sqrt(np.mean(far**2)))[:, None]
    return labels, seen[:, None] + alone


def conditional_score(logits: FloatArray, labels: IntArray, error_variance: float) -> tuple[float, float]:
    """Intercept and slope of the labels on the logits without their error, whose variance is known.

    Source: Stefanski & Carroll, 1987.
    """
    start = fit_recalibration(logits, labels, fixed_slope=False)

    def equations(beta: FloatArray) -> FloatArray:
        sufficient = logits + labels * error_variance * beta[1]
        residual = labels - sigmoid(beta[0] + beta[1] * sufficient - 0.5 * error_variance * beta[1] ** 2)
        return np.array([residual.mean(), (residual * sufficient).mean()])

    found = optimize.root(equations, np.array([start.intercept, start.slope]))
    if not found.success:
        raise RuntimeError(f"conditional score: {found.message}")
    return float(found.x[0]), float(found.x[1])


def matched(logits: FloatArray, calibrator: tuple[float, float]) -> tuple[float, float]:
    """Intercept and slope for the mean of members (n, members), from those for one member; no label is needed."""
    mean = logits.mean(axis=1)
    said = sigmoid(calibrator[0] + calibrator[1] * logits)  # (n, members)
    total, product = said.mean(axis=1), (said * logits).mean(axis=1)

    def equations(beta: FloatArray) -> FloatArray:
        of_mean = sigmoid(beta[0] + beta[1] * mean)
        return np.array([(of_mean - total).mean(), (of_mean * mean - product).mean()])

    found = optimize.root(equations, np.array(calibrator))
    if not found.success:
        raise RuntimeError(f"matched: {found.message}")
    return float(found.x[0]), float(found.x[1])


def within_class_variance(values: FloatArray, labels: IntArray) -> float:
    """Variance about the mean of the class."""
    means = np.array([values[labels == label].mean() for label in (0, 1)])
    return float(np.mean((values - means[labels]) ** 2))


def slopes(kind: str, correlation: float, members: int, cases: int, rng: np.random.Generator) -> FloatArray:
    """Calibration slope of the mean on new cases, one a way; last its sensitivity and specificity at the threshold."""
    labels, logits = study(kind, correlation, members, cases, rng)
    single = logits[np.arange(cases), np.arange(cases) % members]  # of the member that left the case out
    _, unlabelled = study(kind, correlation, members, cases, rng)
    disagreement = float(unlabelled.var(axis=1, ddof=1).mean()) * (1.0 - 1.0 / members)
    new_labels, new_logits = study(kind, correlation, members, 10 * cases, rng)
    fit, spread = fit_recalibration(single, labels, fixed_slope=False), float(single.var())
    plain = fit.slope
    within = within_class_variance(single, labels)
    fitted = {
        "plain": plain,
        "spread": plain * spread / (spread - disagreement),
        "within": plain * within / (within - disagreement),
        "score": conditional_score(single, labels, disagreement)[1],
        "matched": matched(unlabelled, (fit.intercept, fit.slope))[1],
    }
    right = fit_recalibration(new_logits.mean(axis=1), new_labels, fixed_slope=False).slope
    threshold = np.quantile(single[labels == 1], 0.05)  # as a logit; 95 % sensitivity of single members
    positive = new_logits.mean(axis=1) >= threshold
    decided = [positive[new_labels == 1].mean(), (~positive[new_labels == 0]).mean()]
    return np.array([*(right / fitted[way] for way in WAYS), *decided])


def table(draws: int, cases: int, seed: int) -> Iterator[tuple[str, int, float, FloatArray, FloatArray]]:
    """Kind, members, correlation, and the means over draws of ``slopes`` with their standard errors."""
    for kind in KINDS:
        for members in SIZES:
            for correlation in CORRELATIONS:
                rng = np.random.default_rng([seed, KINDS.index(kind), members, int(10 * correlation)])
                found = np.stack([slopes(kind, correlation, members, cases, rng) for _ in range(draws)])
                yield kind, members, correlation, found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(draws)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'kind':8} members  rho  " + "  ".join(f"{way:>14}" for way in (*WAYS, *DECIDED)))
    farthest = {kind: dict.fromkeys(WAYS, 0.0) for kind in KINDS}
    for kind, members, correlation, means, errors in table(options.draws, options.cases, options.seed):
        cells = "  ".join(f"{mean:.3f} ({error:.3f})".rjust(14) for mean, error in zip(means, errors, strict=True))
        print(f"{kind:8} {members:7d}  {correlation:.1f}  {cells}", flush=True)
        for way, mean in zip(WAYS, means[: len(WAYS)], strict=True):
            farthest[kind][way] = max(farthest[kind][way], round(abs(float(mean) - 1.0), 3))
    plain, best = (max(farthest[kind][way] for kind in KINDS) for way in ("plain", "matched"))
    print(json.dumps({"ratio": round(plain / best, 1), "farthest_from_1": farthest}))


if __name__ == "__main__":
    main()
