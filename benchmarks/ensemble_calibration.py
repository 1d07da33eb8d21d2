#!/usr/bin/env python3
"""Are the probabilities of a model of several networks calibrated, when each calibrates on what it alone left out?

    python benchmarks/ensemble_calibration.py [--draws 20] [--cases 20000] [--pairs 5000] [--seed 0]

Simulates labels, and logits of networks that see the same signal and each add an error of their own; ``rho`` is the
correlation of two networks' logits over cases. Single networks' logits calibrate; the mean of all is judged on new
cases. In the kinds of study ``normal`` (normal truth and errors) and ``classes`` (a normal distribution in each class)
errors are the same everywhere; in ``uneven`` networks differ more the farther the logit is from 0.

Two ways: ``single``, the calibrator as single networks' logits give it, and ``mean``, fitted on
``pipeline.evaluation.calibration.ensemble_mean.as_mean_of``, which looks at cases that
two networks have left out, without labels.
Prints, averaged over draws with the standard deviation of one study, the calibration slope of the mean on new cases
(1 is right), and its sensitivity at the threshold that has 95 % on the cases that calibrate. Last comes one JSON line;
``ratio`` is the largest distance of the slope from 1 by ``single`` over that by ``mean``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.ensemble_mean import as_mean_of
from pipeline.evaluation.calibration.logistic import fit_recalibration

KINDS, CORRELATIONS, SIZES = ("normal", "classes", "uneven"), (0.7, 0.8, 0.9, 1.0), (3, 5)
_NEW_CASES = 60_000


def study(
    kind: str, correlation: float, networks: int, cases: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Labels (n,) and networks' logits (n, networks)."""
    if kind == "classes":
        labels = (rng.random(cases) < 0.35).astype(np.int64)
        seen = 1.6 * labels + rng.normal(size=cases)
    else:
        truth = rng.normal(-0.7, 1.6, cases)
        labels = (rng.random(cases) < sigmoid(truth)).astype(np.int64)
        seen = 1.5 * (truth + rng.normal(0.0, 0.8, cases))
    alone = rng.normal(size=(cases, networks)) * np.sqrt(seen.var() * (1.0 - correlation) / correlation)
    if kind == "uneven":
        far = np.abs(seen - seen.mean())
        alone *= (far / np.sqrt(np.mean(far**2)))[:, None]
    return labels, seen[:, None] + alone


def outcome(
    kind: str, correlation: float, networks: int, cases: int, pairs: int, rng: np.random.Generator
) -> list[float]:
    """Slope of the mean by both ways, and its sensitivity at the threshold of both ways."""
    labels, logits = study(kind, correlation, networks, cases, rng)
    single = logits[np.arange(cases), np.arange(cases) % networks]  # of the network that left the case out
    _, twice = study(kind, correlation, 2, pairs, rng)
    new_labels, new = study(kind, correlation, networks, _NEW_CASES, rng)
    mean = new.mean(axis=1)
    right = fit_recalibration(mean, new_labels, fixed_slope=False).slope
    ways = (single, as_mean_of(networks, single, labels, twice).logits)
    slopes = [right / fit_recalibration(way, labels, fixed_slope=False).slope for way in ways]
    reached = [float((mean[new_labels == 1] >= np.quantile(way[labels == 1], 0.05)).mean()) for way in ways]
    return [*slopes, *reached]


def table(draws: int, cases: int, pairs: int, seed: int) -> Iterator[tuple[str, int, float, FloatArray]]:
    """Kind, networks, correlation, and the outcomes of all draws."""
    for kind in KINDS:
        for networks in SIZES:
            for correlation in CORRELATIONS:
                rng = np.random.default_rng([seed, KINDS.index(kind), networks, int(10 * correlation)])
                found = [outcome(kind, correlation, networks, cases, pairs, rng) for _ in range(draws)]
                yield kind, networks, correlation, np.array(found)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cases", type=int, default=20_000, help="that calibrate")
    parser.add_argument("--pairs", type=int, default=5_000, help="cases that two networks have left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    columns = ("slope, single", "slope, mean", "sensitivity, single", "sensitivity, mean")
    print("| kind | networks | rho | " + " | ".join(columns) + " |")
    farthest = dict.fromkeys(("single", "mean"), 0.0)
    for kind, networks, correlation, found in table(options.draws, options.cases, options.pairs, options.seed):
        means, spread = found.mean(axis=0), found.std(axis=0, ddof=1)
        cells = [f"{mean:.3f} ({sd:.3f})" for mean, sd in zip(means, spread, strict=True)]
        print(f"| {kind} | {networks} | {correlation:.1f} | " + " | ".join(cells) + " |", flush=True)
        for way, mean in zip(farthest, means, strict=False):
            farthest[way] = max(farthest[way], round(abs(float(mean) - 1.0), 3))
    print(json.dumps({"ratio": round(farthest["single"] / farthest["mean"], 1), "farthest_from_1": farthest}))


if __name__ == "__main__":
    main()
