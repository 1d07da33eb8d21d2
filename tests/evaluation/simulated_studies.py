"""Simulated clustered studies with known truth, and how often intervals cover it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.calibrator import logit
from pipeline.evaluation.decisions.decision_curve import net_benefit
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals.bootstrap import paired_auroc_difference
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.intervals.paired_difference import paired_auroc
from pipeline.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Study:
    """Cases of one study: the probabilities are exactly P(label = 1 | score), whatever the patient."""

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray
    comparison: np.ndarray  # a second, weaker score on the same cases

    def predictions(self):
        frame = pd.DataFrame(
            {
                "case_id": np.arange(self.labels.size).astype(str),
                "patient_id": self.patients.astype(str),
                "split": "test",
                "label": self.labels,
                "logit": logit(self.probabilities),
                "probability": self.probabilities,
            }
        )
        return Predictions.from_frame(frame)


def simulate(rng, patients, *, strength=2.0, shift=-0.6, within=0.6):
    """A probit model: score and residual each have a part shared by a patient's 1 to 4 cases.

    The label is 1 when score + residual > 0 with a standard normal residual, so that the probability is
    Phi(score) case by case, while a patient's residuals have correlation ``within``.
    """
    sizes = rng.choice(4, size=patients, p=[0.5, 0.25, 0.15, 0.1]) + 1
    who = np.repeat(np.arange(patients), sizes)

    def shared(correlation):
        return np.sqrt(correlation) * rng.normal(size=patients)[who] + np.sqrt(1 - correlation) * rng.normal(
            size=who.size
        )

    score = shift + strength * shared(0.5)
    labels = (score + shared(within) > 0).astype(int)
    comparison = score + strength * shared(0.3)
    return Study(labels, np.clip(stats.norm.cdf(score), 1e-12, 1 - 1e-12), who, comparison)


def point(threshold):
    return OperatingPoint(threshold, "youden", None, None, 1, 1, 0.5, 0.5)


def truth(threshold, *, seed=1, patients=1_500_000, **model):
    study = simulate(np.random.default_rng(seed), patients, **model)
    decided = metrics.confusion(study.labels, study.probabilities, threshold)
    area = metrics.auroc(study.labels, study.probabilities)
    return {
        "auroc": area,
        "average_precision": metrics.average_precision(study.labels, study.probabilities),
        "brier_score": metrics.brier_score(study.labels, study.probabilities),
        "log_loss": metrics.log_loss(study.labels, study.probabilities),
        "calibration_slope": 1.0,
        "calibration_intercept": 0.0,
        "sensitivity": decided.sensitivity,
        "specificity": decided.specificity,
        "ppv": decided.true_positive / (decided.true_positive + decided.false_positive),
        "npv": decided.true_negative / (decided.true_negative + decided.false_negative),
        "net_benefit": float(net_benefit(study.labels, study.probabilities, thresholds=[threshold])[0]),
        "difference": area - metrics.auroc(study.labels, study.comparison),
    }


def coverage(*, studies, patients, threshold=0.2, resamples=1000, seed=0, true_patients=1_500_000, **model):
    """Share of simulated studies whose 95 % interval holds the truth, and the number that define it."""
    wanted = truth(threshold, patients=true_patients, **model)
    held = {name: [] for name in (*wanted, "difference_analytic")}
    for number in range(studies):
        rng = np.random.default_rng([seed, number])
        study = simulate(rng, patients, **model)
        found = evaluate(study.predictions(), operating_point=point(threshold), resamples=resamples, seed=number)
        intervals = {name: each for name, each in found.intervals.items() if name in wanted}
        cases = (study.labels, study.probabilities, study.comparison, study.patients)
        try:
            intervals["difference"] = paired_auroc_difference(*cases, resamples=resamples, rng=rng)
            intervals["difference_analytic"] = paired_auroc(*cases).interval()
        except UndefinedMetricError:
            pass
        for name, interval in intervals.items():
            held[name].append(interval.contains(wanted[name.removesuffix("_analytic")]))
    return {name: (float(np.mean(values)), len(values)) for name, values in held.items()}


def proportion_coverage(*, studies, patients, cases, share, alike, seed=0):
    """Share of simulated studies whose 95 % interval holds a true proportion.

    Each patient's own share is drawn from a beta distribution around ``share``, so that two cases of a patient have
    correlation ``alike``; every patient has ``cases`` cases.
    """
    rng = np.random.default_rng(seed)
    spread = (1 - alike) / alike
    own = rng.beta(share * spread, (1 - share) * spread, size=(studies, patients, 1))
    right = (rng.random((studies, patients, cases)) < own).astype(int).reshape(studies, -1)
    who = np.repeat(np.arange(patients), cases)
    return float(np.mean([proportion_interval(each, who).contains(share) for each in right]))
