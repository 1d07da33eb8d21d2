"""Challengers of a known quality before the gate: how often it promotes them, and where the champion drifts to.

Every model's score is normal in each class, with an AUROC of its own, and correlated by 0.8 with every other model's;
its threshold is the one of 90 % true sensitivity. One case a patient. The gate's own comparisons decide.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.config.gate_policy import GatePolicy
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.gate.noninferiority import not_inferior
from pipeline.evaluation.gate.records import Contender, GateLook
from pipeline.evaluation.gate.subgroups import no_collapse
from pipeline.evaluation.intervals.paired_difference import paired_auroc
from pipeline.evaluation.predictions import Predictions

CHAMPION = 0.85
CORRELATION = 0.8
SENSITIVITY = 0.9


def policy(margin):
    return GatePolicy(auroc_margin=margin, sensitivity_margin=margin, specificity_margin=margin)


class LockedSet:
    """Cases, and what all models see in them alike."""

    def __init__(self, rng, malignant, benign):
        self.rng = rng
        self.labels = np.repeat([1, 0], [malignant, benign])
        self.shared = np.sqrt(CORRELATION) * rng.normal(size=self.labels.size)
        names = np.arange(self.labels.size).astype(str)
        table = {"case_id": names, "patient_id": names, "split": "test", "label": self.labels, "logit": 0.0}
        self.table = Predictions.from_frame(pd.DataFrame(table)).frame

    def own(self):
        """What one model sees and no other."""
        return self.rng.normal(size=self.labels.size)

    def scores(self, auroc, own=None):
        """What a model of this true AUROC says."""
        own = self.own() if own is None else own
        return self.labels * separation(auroc) + self.shared + np.sqrt(1.0 - CORRELATION) * own

    def answers(self, auroc, own=None):
        """A model of this true AUROC, at its threshold."""
        apart, scores = separation(auroc), self.scores(auroc, own)
        threshold = float(sigmoid(apart - stats.norm.ppf(SENSITIVITY)))
        judged = SimpleNamespace(operating_point=SimpleNamespace(threshold=threshold))
        return Contender(Predictions(self.table.assign(probability=sigmoid(scores))), judged)


def separation(auroc):
    """Of the classes' means, in standard deviations."""
    return float(np.sqrt(2.0) * stats.norm.ppf(auroc))


def passes(challenger, *references, margin, number=1):
    """Whether all comparisons are shown, and whether that of AUROC with the first reference is."""
    at = GateLook(number, GatePolicy().alpha)
    found = [not_inferior(challenger, each, policy=policy(margin), at=at) for each in references]
    return all(each.holds for conditions in found for each in conditions), found[0][0].holds


def promotion_rate(difference, *, malignant, benign, margin, studies, seed=0):
    """Share of studies in which a challenger better by this AUROC than the champion, who is the anchor, is promoted."""
    rng, promoted = np.random.default_rng([seed, malignant]), 0
    for _ in range(studies):
        cases = LockedSet(rng, malignant, benign)
        promoted += passes(cases.answers(CHAMPION + difference), cases.answers(CHAMPION), margin=margin)[0]
    return promoted / studies


def drift(step, *, anchored, malignant, benign, margin, chains, challengers=10, seed=0):
    """Mean and lowest true AUROC of the last champion, less the first's; each challenger is worse by a step.

    Every challenger is judged on new patients, so that no look costs another.
    """
    rng, last = np.random.default_rng(seed), []
    for _ in range(chains):
        champion = CHAMPION
        for _ in range(challengers):
            cases = LockedSet(rng, malignant, benign)
            references = [cases.answers(champion)]
            if anchored and champion != CHAMPION:
                references.append(cases.answers(CHAMPION))
            if passes(cases.answers(champion - step), *references, margin=margin)[0]:
                champion -= step
        last.append(champion - CHAMPION)
    return float(np.mean(last)), float(np.min(last))


def false_promotions(*, spending, malignant, benign, margin, studies, looks=20, adaptive=False, seed=0):
    """Share of studies in which one of several challengers, each worse by the margin, passes; all, and by AUROC alone.

    An adaptive developer keeps of every two challengers the one whose printed gain in AUROC was larger, and makes the
    next one of it, half old and half new; the true AUROC stays what it was.
    """
    rng, passed = np.random.default_rng(seed), np.zeros(2)
    for _ in range(studies):
        cases = LockedSet(rng, malignant, benign)
        champion, best, any_passed = cases.answers(CHAMPION), None, np.zeros(2, dtype=bool)
        for number in range(1, looks + 1):
            own = cases.own() if best is None else np.sqrt(0.5) * best[1] + np.sqrt(0.5) * cases.own()
            challenger = cases.answers(CHAMPION - margin, own)
            any_passed |= passes(challenger, champion, margin=margin, number=number if spending else 1)
            if adaptive:
                area = printed_auroc(challenger)
                best = (area, own) if best is None or area > best[0] else best
        passed += any_passed
    return tuple((passed / studies).tolist())


def false_rankings(*, spending, patients, margin, studies, looks=20, seed=0):
    """Share of studies in which a challenger worse by the margin passes by AUROC in one of several looks."""
    rng, passed, patients_of = np.random.default_rng(seed), 0, np.arange(2 * patients)
    for _ in range(studies):
        cases = LockedSet(rng, patients, patients)
        champion = cases.scores(CHAMPION)
        passed += any(
            paired_auroc(cases.labels, cases.scores(CHAMPION - margin), champion, patients_of)
            .interval(level=GateLook(number if spending else 1, GatePolicy().alpha).level)
            .lower
            > -margin
            for number in range(1, looks + 1)
        )
    return passed / studies


def subgroup_outcomes(drop, *, malignant, benign, studies, seed=0):
    """Shares of studies in which no collapse is shown, not shown, and refuted.

    Nine subgroups of three columns: site (a quarter, three quarters), sex (two halves), age (four bands, some missing).
    """
    rng, counts = np.random.default_rng([seed, malignant]), dict.fromkeys(("shown", "not shown", "refuted"), 0)
    for _ in range(studies):
        cases = LockedSet(rng, malignant, benign)
        size = cases.labels.size
        south = np.arange(size) % 4 == 0
        age = np.where(rng.random(size) < 0.05, np.nan, rng.uniform(35.0, 90.0, size))
        columns = {"site": np.where(south, "south", "north"), "sex": rng.choice(["f", "m"], size), "age": age}
        cases.table = cases.table.assign(**columns)
        weaker = np.where(south, separation(CHAMPION - drop), separation(CHAMPION)) - separation(CHAMPION)
        own = cases.own() + cases.labels * weaker / np.sqrt(1.0 - CORRELATION)
        found = no_collapse(cases.answers(CHAMPION, own), cases.answers(CHAMPION), list(columns), policy=GatePolicy())
        counts[found.outcome] += 1
    return tuple(count / studies for count in counts.values())


def printed_auroc(contender):
    labels, scores = contender.predictions.labels, contender.predictions.probabilities
    ranks = stats.rankdata(scores)[labels == 1]
    positives = ranks.size
    return (ranks.sum() - positives * (positives + 1) / 2) / (positives * (labels.size - positives))
