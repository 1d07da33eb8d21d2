"""Labelled cases for evaluating an existing model: those it has not seen, and its answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cases.case import CENTER_COLUMNS, Case
from pipeline.cases.manifest import Manifest
from pipeline.config.inputs import MALIGNANT
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.agreement import MIDDLE, ReaderColumns, usual_reader_columns
from pipeline.evaluation.usual_columns import SUBGROUP_COLUMNS
from pipeline.files import sha256_json
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_description import FITTED_ON, ModelDescription
from pipeline.scoring.model_directory import Model
from pipeline.scoring.rows import ScoreRow
from pipeline.scoring.scorer import Scorer
from pipeline.workflow.judging.calibrate import predictions_of

_SAME_CASES = 0.5  # share of known case ids, among patients all new, from which the patients' ids are doubted


@dataclass(frozen=True, eq=False)
class Scored:
    """A labelled case with the model's row for it."""

    case: Case
    row: ScoreRow

    @property
    def usable(self) -> bool:
        """Whether the model gave a probability."""
        return self.row.probability is not None


def seen_cases(description: ModelDescription, cases: Sequence[Case], *, splits: Sequence[str] = FITTED_ON) -> set[str]:
    """Ids of the cases whose patient is in the model's training, validation or calibration data."""
    seen_patients = description.patients.seen_patients((str(case.patient_id) for case in cases), splits=splits)
    return {case.case_id for case in cases if str(case.patient_id) in seen_patients}


def seen_images(description: ModelDescription, scored: Sequence[Scored]) -> set[str]:
    """Ids of cases whose patient seems new but whose image the model was fitted on."""
    known = seen_cases(description, [scored_case.case for scored_case in scored])
    digests = {
        scored_case.case.case_id: scored_case.row.image_sha256 for scored_case in scored if scored_case.row.image_sha256
    }
    seen_digests = description.patients.seen_images(set(digests.values()))
    return {case_id for case_id, digest in digests.items() if digest in seen_digests and case_id not in known}


def known_images_text(case_ids: Collection[str]) -> str | None:
    """Line on cases whose images the model was fitted on under other patient ids."""
    if not case_ids:
        return None
    return (
        f"{len(case_ids)} cases of patients that seem new have images that the model was fitted on; write the "
        "patients' ids as they were at training, or leave these cases out"
    )


def doubted_patients(description: ModelDescription, cases: Sequence[Case]) -> str | None:
    """Why patients who all seem new may not be: most of their cases' ids are ids that the model was fitted on."""
    known = description.patients.seen_case_ids(case.case_id for case in cases)
    if seen_cases(description, cases) or len(known) < max(1, _SAME_CASES * len(cases)):
        return None
    return (
        f"none of the patients is known to the model, but {len(known)} of {len(cases)} case ids are: the patients' ids "
        "may be other ones than at training; write them as they were then, or give other ids to other cases"
    )


def score_labelled(model: Model, cases: Sequence[Case], *, root: Path) -> list[Scored]:
    """The model's row for each case, in order."""
    rows = score_cases(Scorer(model, root=root), cases)
    return [Scored(case, row) for case, row in zip(cases, rows, strict=True)]


def predictions_from(
    scored: Sequence[Scored], columns: Sequence[str], findings: Sequence[str] = (MALIGNANT,)
) -> Predictions:
    """Usable rows as predictions of the split ``test``, with subgroup columns.

    Args:
        scored: cases with rows that have a probability.
        columns: subgroup columns.
        findings: the model's, whose columns the cases have, or its first alone.
    """
    logits, probabilities = (
        np.array([_scores(scored_case.row, name, len(findings)) for scored_case in scored], dtype=np.float64)
        for name in ("logit", "probability")
    )
    cases = [scored_case.case for scored_case in scored]
    return predictions_of(cases, ["test"] * len(cases), logits, probabilities, columns, seed=0, findings=findings)


def _scores(row: ScoreRow, name: str, findings: int) -> list[float]:
    """Logits or probabilities of a row's first findings."""
    return [getattr(scores, name) for scores in (row.findings[:findings] or (row,))]


def subgroup_columns(manifest: Manifest, *descriptions: ModelDescription) -> list[str]:
    """Columns to judge subgroups by: the usual ones and those of the models' configurations that the manifest has."""
    configured: list[str] = []
    for description in descriptions:
        evaluation = (description.provenance.get("config") or {}).get("evaluation") or {}
        configured += evaluation.get("subgroups") or []
    return [name for name in dict.fromkeys([*configured, *SUBGROUP_COLUMNS]) if name in manifest.columns]


def reader_columns(manifest: Manifest, description: ModelDescription) -> ReaderColumns | None:
    """Columns of several readers' ratings: those of the model's configuration, else the usual ones; None without."""
    configured = (description.provenance.get("config") or {}).get("evaluation") or {}
    names = [name for name in configured.get("readers") or () if name in manifest.columns]
    columns = tuple(names) or usual_reader_columns(manifest.columns)
    return ReaderColumns(columns, float(configured.get("rating_middle", MIDDLE))) if columns else None


def cases_digest(cases: Sequence[Case]) -> str:
    """Digest of cases and labels, independent of the table's order, other columns and spelling."""
    return sha256_json(sorted([case.case_id, case.patient_id, case.label, case.image] for case in cases))


def manifest_record(case: Case, description: ModelDescription) -> dict[str, Any]:
    """A case as a row of the manifest columns that the registered model takes."""
    row: dict[str, Any] = {"case_id": case.case_id, "patient_id": case.patient_id or "", "image": case.image}
    if case.center_mm is not None:
        row |= dict(zip(("center_x_mm", "center_y_mm", "center_z_mm"), case.center_mm, strict=True))
        row["coordinate_system"] = "RAS"
    return row | {name: float(case.extra[name]) for name in description.covariates}


def example_record(description: ModelDescription) -> dict[str, Any]:
    """A fictitious case as a row of the columns that a model needs, because the row is published."""
    row: dict[str, Any] = {"case_id": "example", "patient_id": "example", "image": "example.nii.gz"}
    if description.preprocessing.region == "lesion":
        row |= dict.fromkeys(CENTER_COLUMNS, 0.0) | {"coordinate_system": "RAS"}
    return row | dict.fromkeys(description.covariates, 1.0)
