"""Score cases: read them, run the network, calibrate, and apply the threshold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.covariates import covariates_of
from pipeline.cases.prepare import PreparationResult, prepare_case
from pipeline.cases.signature import input_signature
from pipeline.evaluation.calibration.calibrator import Calibrator, sigmoid
from pipeline.evaluation.decisions.refer_zone import Decision, ReferZone, decide
from pipeline.imaging.image import Scan
from pipeline.imaging.preprocess import ModelInput
from pipeline.scoring.backends import Backend, build_predict
from pipeline.scoring.ensemble import Ensemble, averages_probabilities, mean_thresholds
from pipeline.scoring.model_directory import Member, Model
from pipeline.scoring.rows import FindingScore, ScoreRow, case_columns, first_code, now, refusal, why_unscored


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case with its network input, or with the reason why it has none."""

    case: Case
    outcome: PreparationResult | Exception
    signature: str
    started: float


class Scorer:
    """Scores cases with one model, or with several as an ensemble; every engine and the MLflow flavour call it.

    An ensemble's members are the networks of all models, equal in weight: the mean of their calibrated logits, or of
    their probabilities when one is isotonic. Its threshold is the same mean of the models' thresholds. A refer zone
    holds for one model's probabilities alone, so models with one make no ensemble.

    Args:
        models: loaded model directories; one preprocessing, so that each scan is read once.
        root: folder that no image may leave, None for no such limit.
        device: for the networks; ``cuda`` when there is one, else ``cpu``, by default.
        backend: how the networks are run.

    Raises:
        UsageError: when the models differ in preprocessing, modality or meaning, or one of several has a refer zone.

    Attributes:
        descriptions: of the models.
        threshold: probability from which a case is positive.
        member_columns, finding_columns: of its rows; see `pipeline.scoring.ensemble.Ensemble`.
        identity: of its rows.
    """

    def __init__(
        self, *models: Model, root: Path | None = None, device: str | None = None, backend: Backend = "eager"
    ) -> None:
        ensemble = Ensemble.of([model.description for model in models])
        self._models, self._root = models, root
        self.descriptions = ensemble.descriptions
        self.member_columns, self.finding_columns = ensemble.member_columns, ensemble.finding_columns
        self._preprocessing = models[0].description.preprocessing
        self._covariates = models[0].description.covariates
        self._members = [member for model in models for member in model.members]
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        shape = (1, *self._preprocessing.size)
        self._predict = [build_predict(member.network, backend, shape=shape, device=device) for member in self._members]
        points = [[point.threshold for point in model.operating_points] for model in models for _ in model.members]
        self._thresholds = mean_thresholds([member.calibrators for member in self._members], points)
        self.threshold = self._thresholds[0]
        self._refer_zone = models[0].refer_zone  # of several models none has one
        self.identity = ensemble.identity(backend)

    def under(self, root: Path | None) -> Scorer:
        """The same scorer, with the same networks, for images under another root."""
        other = copy.copy(self)
        other._root = root
        return other

    def prepare(self, case: Case, *, scan: Scan | None = None) -> Prepared:
        """Read, check and preprocess one case; never raises because of the case.

        Args:
            case: what to read.
            scan: the case's scan, when it has been opened before; then no file is looked at.
        """
        started = perf_counter()
        signature = ""
        try:
            signature = "" if scan else input_signature(case, self._covariates)
            outcome: PreparationResult | Exception = self._outcome(case, scan)
        except Exception as error:  # noqa: BLE001  # a fault of ours costs this row, never the batch
            outcome = error
        return Prepared(case, outcome, signature, started)

    def _outcome(self, case: Case, scan: Scan | None) -> PreparationResult:
        first, *others = self._models
        modality = first.description.modality
        outcome = prepare_case(
            case,
            self._preprocessing,
            modality=modality,
            root=self._root,
            envelope=first.envelope,
            covariates=self._covariates,
            scan=scan,
        )
        for other in others:
            if isinstance(outcome, ModelInput) and other.envelope is not None:
                near = other.envelope.judge(outcome.measures, path=case.path)
                outcome = replace(outcome, warnings=tuple(dict.fromkeys((*outcome.warnings, *near))))
        return outcome

    def score(self, batch: Sequence[Prepared]) -> list[ScoreRow]:
        """One row for each prepared case, in order; the usable ones go through the network together."""
        usable = [item.outcome for item in batch if isinstance(item.outcome, ModelInput)]
        values = np.array([covariates_of(model_input.measures, list(self._covariates)) for model_input in usable])
        images = [model_input.voxels for model_input in usable]
        scores = zip(*self._scores(np.stack(images), values), strict=True) if usable else iter(())
        return [
            self._row(item, *next(scores)) if isinstance(item.outcome, ModelInput) else self._rejection(item)
            for item in batch
        ]

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean logits and calibrated probabilities, each (B, F), of images (B, 1, R, A[, S]) at average covariates."""
        logits, probabilities, _ = self._scores(images)
        return logits, probabilities

    def member_probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Each member's own calibrated probabilities (B, M, F) of images (B, 1, R, A[, S]) with average covariates."""
        return self._scores(images)[2]

    def _scores(
        self, images: NDArray[np.float32], covariates: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], ...]:
        """Mean logits (B, F), probabilities (B, F) and members' probabilities (B, M, F).

        Args:
            images: (B, 1, R, A[, S]).
            covariates: (B, K); None has them all at their means, where they add nothing.
        """
        logits = np.stack([predict(images) for predict in self._predict])  # (M, B, F)
        if covariates is not None:
            logits += np.stack([member.covariates.logits(covariates) for member in self._members])
        of_members = np.stack([calibrated(member, rows) for member, rows in zip(self._members, logits, strict=True)])
        return logits.mean(axis=0), combine(self._members, logits), of_members.swapaxes(0, 1)

    def _row(
        self,
        item: Prepared,
        logits: NDArray[np.float64],
        probabilities: NDArray[np.float64],
        members: NDArray[np.float64],
    ) -> ScoreRow:
        assert isinstance(item.outcome, ModelInput)
        codes = [warning.code for warning in item.outcome.warnings]
        zones = [self._refer_zone, *[None] * (len(self._thresholds) - 1)]  # the zone is the first finding's
        findings = [
            FindingScore(float(logit), float(probability), self._decide(float(probability), threshold, zone))
            for logit, probability, threshold, zone in zip(logits, probabilities, self._thresholds, zones, strict=True)
        ]
        return ScoreRow(
            **case_columns(item.case),
            status="flagged" if codes else "scored",
            code=first_code(codes),
            reason="; ".join(warning.detail for warning in item.outcome.warnings),
            warnings=";".join(codes),
            probability=findings[0].probability,
            decision=findings[0].decision,
            threshold=self.threshold,
            logit=findings[0].logit,
            image_sha256=item.outcome.scan.digest,
            members=tuple(members[:, 0].tolist()) if self.member_columns else (),
            findings=tuple(findings) if self.finding_columns else (),
            measures=item.outcome.measures,
            signature=item.signature,
            **asdict(self.identity),
            scored_at=now(),
            seconds=round(perf_counter() - item.started, 4),
        )

    @staticmethod
    def _decide(probability: float, threshold: float, zone: ReferZone | None) -> Decision:
        return cast(Decision, decide(probability, threshold=threshold, zone=zone).item())

    def _rejection(self, item: Prepared) -> ScoreRow:
        assert isinstance(item.outcome, Exception)
        seconds = perf_counter() - item.started
        why = why_unscored(item.outcome)
        return refusal(item.case, self.identity, **why, signature=item.signature, seconds=seconds)


def calibrated(member: Member, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """A member's own probabilities (B, F) of its logits (B, F)."""
    return _by_finding(Calibrator.apply, member, logits)


def combine(members: Sequence[Member], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (B, F) of logits (M, B, F).

    They are the mean of calibrated logits, or, with an isotonic member, of calibrated probabilities. Members with one
    calibrator were calibrated together, for the mean of their logits.
    """
    first = members[0]
    if all(member.calibrators == first.calibrators for member in members):
        return calibrated(first, logits.mean(axis=0))
    if averages_probabilities(member.calibrators for member in members):
        return np.asarray(np.mean([calibrated(*pair) for pair in zip(members, logits, strict=True)], axis=0))
    pairs = zip(members, logits, strict=True)
    return sigmoid(np.mean([_by_finding(Calibrator.calibrated_logit, *pair) for pair in pairs], axis=0))


def _by_finding(
    apply: Callable[[Calibrator, NDArray[np.float64]], NDArray[np.float64]],
    member: Member,
    logits: NDArray[np.float64],
) -> NDArray[np.float64]:
    columns = [apply(calibrator, column) for calibrator, column in zip(member.calibrators, logits.T, strict=True)]
    return np.stack(columns, axis=1)
