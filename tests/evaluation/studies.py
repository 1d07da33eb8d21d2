"""Small made-up studies for the tests of this room."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.evaluation.calibration.calibrator import Calibrator, sigmoid
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.predictions import Predictions


def frame(n=240, *, seed=0, temperature=1.6, split="test"):
    """Clustered cases whose logits are too large by ``temperature``."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n // 2, n)
    true_logits = -0.7 + 1.4 * rng.normal(size=n) + rng.normal(size=n // 2)[patients]
    return pd.DataFrame(
        {
            "case_id": [f"{number:03d}" for number in range(n)],
            "patient_id": [f"p{number}" for number in patients],
            "split": split,
            "label": (rng.random(n) < sigmoid(true_logits)).astype(int),
            "logit": true_logits * temperature,
            "site": np.where(patients % 2, "north", "south"),
            "diameter_mm": 8.0 + 3.0 * true_logits + 4.0 * rng.random(n),
        }
    )


def calibrator(temperature=1.6):
    return Calibrator(method="temperature", parameters={"temperature": temperature})


def predictions(n=240, **settings):
    return Predictions.from_frame(frame(n, **settings)).with_probabilities(calibrator().apply)


def point(threshold=0.2):
    return OperatingPoint(
        threshold=threshold,
        rule="sensitivity",
        target=0.95,
        cost_ratio=None,
        n_positive=60,
        n_negative=100,
        sensitivity=0.95,
        specificity=0.5,
    )


def several_seeds(test, *, noise=0.3):
    """The same cases under three seeds, whose logits differ by chance."""
    rng = np.random.default_rng(1)
    parts = [
        test.frame.assign(seed=seed, logit=test.logits + noise * rng.normal(size=len(test)), probability=None)
        for seed in (3, 1, 2)
    ]
    return Predictions.from_frame(pd.concat(parts, ignore_index=True)).with_probabilities(calibrator().apply)
