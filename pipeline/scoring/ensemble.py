"""Common properties of the rows of one model, or of an ensemble, from their descriptions alone; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UsageError
from pipeline.evaluation.calibration.calibrator import Calibrator, sigmoid
from pipeline.evaluation.calibration.calibrator import logit as log_odds
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.files import sha256_json
from pipeline.scoring.backends import Backend
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.rows import ModelIdentity


@dataclass(frozen=True)
class Ensemble:
    """Models that score together, the members of all of them equal in weight.

    Attributes:
        descriptions: of the models, at least one.
        thresholds: probability from which a case is positive, for each finding.
    """

    descriptions: tuple[ModelDescription, ...]
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, descriptions: Sequence[ModelDescription]) -> Ensemble:
        """Put models together.

        Raises:
            UsageError: when they differ in preprocessing, modality or meaning, or one of several has a refer zone.
        """
        require_one_input(descriptions)
        members = [(model, member) for model in descriptions for member in model.members]
        calibrators = [
            [Calibrator.from_json(dict(parameters)) for parameters in member.calibrators] for _, member in members
        ]
        thresholds = [
            [OperatingPoint.from_json(dict(point)).threshold for point in model.operating_points]
            for model, _ in members
        ]
        return cls(tuple(descriptions), mean_thresholds(calibrators, thresholds))

    @property
    def threshold(self) -> float:
        """Of the first finding."""
        return self.thresholds[0]

    @property
    def member_columns(self) -> int:
        """How many ``probability_member_<n>`` columns the rows have; 0 for a single network."""
        members = sum(len(model.members) for model in self.descriptions)
        return members if members > 1 else 0

    @property
    def finding_columns(self) -> tuple[str, ...]:
        """Findings whose ``probability_<finding>`` and ``decision_<finding>`` the rows have; empty for one finding."""
        findings = self.descriptions[0].findings
        return findings if len(findings) > 1 else ()

    def identity(self, backend: Backend) -> ModelIdentity:
        """Identity of the models in the rows; a backend other than the default is named.

        The digest of an ensemble covers the models' digests in the order given.
        """
        names = "+".join(f"{model.name}@{model.digests.model[:12]}" for model in self.descriptions)
        digests = [model.digests.model for model in self.descriptions]
        return ModelIdentity(
            model=names if backend == "eager" else f"{names} ({backend})",
            model_digest=digests[0] if len(digests) == 1 else sha256_json(digests),
            preprocessing_digest=self.descriptions[0].digests.preprocessing,
        )


def require_one_input(models: Sequence[ModelDescription]) -> None:
    """Refuse models that cannot share one reading of a scan, or that mean different things.

    Raises:
        UsageError: naming the first difference.
    """
    first = models[0]
    zoned = [model.name for model in models if model.refer_zone is not None]
    if zoned and len(models) > 1:
        raise UsageError(
            f"{zoned[0]} has a refer zone, which holds for its own probabilities and not for an ensemble's; score with "
            "it alone, or use models trained with operating_point.refer_coverage: null"
        )
    for other in models[1:]:
        pairs = {
            "preprocessing": (first.preprocessing, other.preprocessing),
            "modality": (first.modality, other.modality),
            "findings": (first.findings, other.findings),
            "covariates": (first.covariates, other.covariates),
            "label source": (first.label.source, other.label.source),
            "intensities": (first.label.intensities, other.label.intensities),
        }
        for name, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise UsageError(
                    f"{first.name} and {other.name} differ in {name}, so they make no ensemble; score with each alone"
                )


def averages_probabilities(calibrators: Iterable[Sequence[Calibrator]]) -> bool:
    """Whether members' probabilities are averaged, not their calibrated logits: an isotonic one has no logit."""
    return any(calibrator.method == "isotonic" for member in calibrators for calibrator in member)


def mean_thresholds(
    calibrators: Sequence[Sequence[Calibrator]], thresholds: Sequence[Sequence[float]]
) -> tuple[float, ...]:
    """For each finding the members' thresholds, averaged on the scale on which their scores are.

    Args:
        calibrators: for each member, one for each finding.
        thresholds: likewise.
    """
    means = []
    for of_members in zip(*thresholds, strict=True):
        if len(set(of_members)) == 1:
            means.append(of_members[0])
        elif averages_probabilities(calibrators):
            means.append(float(np.mean(of_members)))
        else:
            means.append(float(sigmoid(np.mean(log_odds(np.clip(of_members, 1e-12, 1 - 1e-12))))))
    return tuple(means)
