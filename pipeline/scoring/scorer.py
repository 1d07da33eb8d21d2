"""From prepared inputs to score rows: the network, the calibrator, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.prepare import Outcome, prepare_case
from pipeline.errors import CaseError, Code
from pipeline.evaluation.calibrator import sigmoid
from pipeline.imaging.preprocess import ModelInput
from pipeline.models.networks import predict_logits
from pipeline.scoring.model_directory import Member, Model
from pipeline.scoring.rows import ScoreRow, first_code, identity, now


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case with its network input, or with the reason why it has none."""

    case: Case
    outcome: Outcome | Exception
    started: float


class Scorer:
    """Scores cases with one model; evaluation, the command, Ray and the MLflow flavour all call it.

    Args:
        model: a loaded model directory.
        root: folder that no image may leave, None for no such limit.
        device: for the network; ``cuda`` when there is one, else ``cpu``, by default.
    """

    def __init__(self, model: Model, *, root: Path | None = None, device: str | None = None) -> None:
        self.model, self._root = model, root
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        for member in model.members:
            member.network.to(device)

    def prepare(self, case: Case) -> Prepared:
        """Read, check and preprocess one case; never raises for the case's sake."""
        started = perf_counter()
        description = self.model.description
        try:
            outcome: Outcome | Exception = prepare_case(
                case,
                description.preprocessing,
                modality=description.modality,
                root=self._root,
                envelope=self.model.envelope,
            )
        except Exception as error:  # noqa: BLE001  # a fault of ours costs this row, never the batch
            outcome = error
        return Prepared(case, outcome, started)

    def score(self, batch: Sequence[Prepared]) -> list[ScoreRow]:
        """One row for each prepared case, in order; the usable ones go through the network together."""
        usable = [item.outcome for item in batch if isinstance(item.outcome, ModelInput)]
        logits, probabilities = (
            self.predict(np.stack([each.voxels for each in usable])) if usable else (np.empty(0), np.empty(0))
        )
        scores = iter(zip(logits, probabilities, strict=True))
        return [
            self._row(item, *next(scores)) if isinstance(item.outcome, ModelInput) else self._rejection(item)
            for item in batch
        ]

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits and calibrated probabilities, each (B,), of images (B, 1, R, A[, S])."""
        tensor = torch.from_numpy(images)
        logits = np.stack(
            [predict_logits(member.network, tensor, batch_size=len(tensor)).numpy() for member in self.model.members]
        )
        return logits.mean(axis=0), combine(self.model.members, logits)

    def _row(self, item: Prepared, logit: float, probability: float) -> ScoreRow:
        assert isinstance(item.outcome, ModelInput)
        threshold = self.model.operating_point.threshold
        codes = [warning.code for warning in item.outcome.warnings]
        return ScoreRow(
            **identity(item.case),
            status="flagged" if codes else "scored",
            code=first_code(codes),
            reason="; ".join(warning.detail for warning in item.outcome.warnings),
            warnings=";".join(codes),
            probability=float(probability),
            decision="positive" if probability >= threshold else "negative",
            threshold=threshold,
            logit=float(logit),
            image_sha256=item.outcome.image_sha256,
            **self._provenance(item),
        )

    def _rejection(self, item: Prepared) -> ScoreRow:
        error = item.outcome
        if isinstance(error, CaseError):
            return ScoreRow(
                **identity(item.case),
                status="rejected",
                code=error.code,
                reason=error.reason,
                warnings=";".join(error.warnings),
                **self._provenance(item),
            )
        # The message of an unforeseen error may quote a patient's data: its type must do.
        reason = f"{type(error).__name__} inside the program; please report it with this row"
        return ScoreRow(
            **identity(item.case), status="failed", code=Code.E_INTERNAL, reason=reason, **self._provenance(item)
        )

    def _provenance(self, item: Prepared) -> dict[str, Any]:
        digests = self.model.description.digests
        return {
            "model": self.model.label,
            "model_digest": digests.model,
            "preprocessing_digest": digests.preprocessing,
            "scored_at": now(),
            "seconds": round(perf_counter() - item.started, 4),
        }


def combine(members: Sequence[Member], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability (B,) of logits (M, B): mean of calibrated logits, or, with an isotonic member, of probabilities."""
    pairs = list(zip((member.calibrator for member in members), logits, strict=True))
    if any(calibrator.method == "isotonic" for calibrator, _ in pairs):
        return np.asarray(np.mean([calibrator.apply(row) for calibrator, row in pairs], axis=0))
    return sigmoid(np.mean([calibrator.calibrated_logit(row) for calibrator, row in pairs], axis=0))
