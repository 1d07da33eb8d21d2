"""``malignancy evaluate``: judge a model on labelled cases, or predictions made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.findings import finding_labels, require_both_values, require_findings
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.errors import Code, TableError
from pipeline.evaluation.multilabel import evaluate_findings
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.refused import RefusedCases
from pipeline.evaluation.report.page import Flow, ReportPicture, SplitCounts
from pipeline.evaluation.usual_columns import RATING_SCALE
from pipeline.files import require_free
from pipeline.imaging.preprocess import ModelInput
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import Model, load_model
from pipeline.scoring.rows import ScoreRow
from pipeline.scoring.scorer import Scorer
from pipeline.tracking.promotion import registered_name
from pipeline.tracking.registry import model_folder
from pipeline.workflow.judging.comparison import ChampionBeside, champion_beside
from pipeline.workflow.judging.labelled_cases import (
    Scored,
    doubted_patients,
    known_images_text,
    predictions_from,
    reader_columns,
    score_labelled,
    seen_cases,
    seen_images,
    subgroup_columns,
)
from pipeline.workflow.judging.reader_table import reader_scores, study_or_reason
from pipeline.workflow.judging.table_truth import truth_differences
from pipeline.workflow.reporting.evaluation_result import EvaluationResult, write_result
from pipeline.workflow.reporting.mistakes import mistake_pictures
from pipeline.workflow.reporting.report_sources import ReportSources, preprocessing_facts, provenance_facts
from pipeline.workflow.reporting.training_summary import champion_text


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        champion: judge the registered model's champion on the same cases too.
        pictures: show the most confident mistakes, which are images of patients, in the report.
        prevalence: share of malignant cases to restate net benefit and predictive values for.
        readers: table of readers' scores of the same cases, whose average the model is compared with.
    """

    champion: bool = True
    pictures: bool = False
    prevalence: float | None = None
    readers: Path | None = None


def evaluate_model(
    model_name: str, manifest_path: Path, out: Path, options: EvaluateOptions | None = None
) -> EvaluationResult:
    """Score the labelled cases of a manifest and judge the model on them, all together.

    Cases of patients that the model has seen are left out and counted, because a model may not be judged on them.

    Args:
        model_name: model directory or MLflow model URI.
        manifest_path: labelled cases.
        out: new folder.
        options: of the evaluation.

    Raises:
        TableError: when the manifest has a fault, or too few cases are left.
        UsageError: when ``out`` is not a new folder.
    """
    options = options or EvaluateOptions()
    require_free(out)
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    scores = reader_scores(options.readers, [case.case_id for case in manifest.cases], "the manifest")
    model = load_model(model_folder(model_name, Tracking()))
    require_findings(manifest, model.findings)
    labelled = [case for case in manifest.cases if case.label is not None]
    seen = seen_cases(model.description, labelled)
    scorer = Scorer(model, root=manifest.root)
    new = [case for case in labelled if case.case_id not in seen]
    scored = [Scored(case, row) for case, row in zip(new, score_cases(scorer, new), strict=True)]
    known_images = seen_images(model.description, scored)
    scored = [answer for answer in scored if answer.case.case_id not in known_images]
    unseen, rows = [answer.case for answer in scored], [answer.row for answer in scored]
    findings = _known(model, manifest, unseen)
    judged_rows = [(answer.case, answer.row) for answer in scored if answer.usable]
    if len({case.label for case, _ in judged_rows}) < 2:
        raise _one_class(manifest_path, rows, labelled=len(labelled))
    differences = truth_differences(
        manifest.facts, label_source=model.description.label.source, intensities=model.description.label.intensities
    )
    doubtful = [answer for answer in _score_indeterminate(model, manifest) if answer.usable]
    judged, predictions = _judged(model, manifest, labelled, unseen, judged_rows, doubtful, findings)
    cases = [case for case, _ in judged_rows]
    beside = _champion_beside(model_name, model, judged, cases, manifest.root) if options.champion else "not asked for"
    judged = replace(
        judged,
        refused=_refused(scored),
        prevalence=options.prevalence,
        reader_study=study_or_reason(judged.predictions, scores),
        champion=beside,
        pictures=_pictures(model, scorer, judged.predictions, cases) if options.pictures else (),
        differences=tuple(differences.lines),
    )
    lines = write_result(judged, out, all_predictions=predictions, refer_zone=model.refer_zone)
    rejected = tuple(row for row in rows if row.probability is None)
    lines += [*differences.lines, champion_text(beside), *_rejections(rejected)]
    lines.append(f"{len(seen) + len(known_images)} cases of patients that the model has seen were left out")
    doubts = (known_images_text(known_images), doubted_patients(model.description, labelled))
    lines += [f"warning: {doubt}" for doubt in doubts if doubt]
    return EvaluationResult(out, judged.evaluation, rejected, "\n".join(lines))


def _rejections(rows: Sequence[ScoreRow]) -> list[str]:
    return [one_line(f"rejected {row.case_id}: {row.code}: {row.reason}") for row in rows]


def _one_class(path: Path, rows: Sequence[ScoreRow], *, labelled: int) -> TableError:
    """The error for a manifest whose usable cases, not seen by the model, lack a class."""
    rejections = [f"{row.code}: {row.reason}" for row in rows if row.probability is None]
    first = f" (first: {rejections[0]})" if rejections else ""
    return TableError(
        Code.E_ONE_CLASS,
        path,
        f"{labelled} labelled cases, {labelled - len(rows)} of patients or images that the model has seen, "
        f"{len(rejections)} rejected{first}: what is left has not both classes; give cases of other patients",
    )


def _known(model: Model, manifest: Manifest, cases: Sequence[Case]) -> tuple[str, ...]:
    """The label, and the other findings that the cases are labelled with; a column that is blank throughout is named.

    Raises:
        TableError: when one of the others has one class only.
    """
    first, *others = model.findings
    labels = finding_labels(cases, model.findings)[:, 1:]
    known: NDArray[np.bool_] = np.asarray(np.isfinite(labels).any(axis=0))
    names = [name for name, has in zip(others, known, strict=True) if has]
    require_both_values(labels[:, known], names, path=manifest.path, split="judged")
    for name in others:
        if name not in names:
            print(f"finding {name} is blank in every case that may be judged, and is left out")
    return (first, *names)


def _judged(
    model: Model,
    manifest: Manifest,
    labelled: list[Case],
    unseen: list[Case],
    judged: list[tuple[Case, ScoreRow]],
    doubtful: list[Scored],
    findings: Sequence[str],
) -> tuple[ReportSources, Predictions]:
    """The report's sources, and every row of ``predictions.parquet``."""
    description = model.description
    points = {
        name: point for name, point in zip(model.findings, model.operating_points, strict=True) if name in findings
    }
    subgroups = subgroup_columns(manifest, description)
    ratings = [RATING_SCALE.column] if RATING_SCALE.column in manifest.columns else []
    readers = reader_columns(manifest, description)
    ratings += [name for name in (readers.names if readers else ()) if name not in (*subgroups, *ratings)]
    scored = [Scored(*pair) for pair in judged]
    predictions = predictions_from([*scored, *doubtful], [*subgroups, *ratings])
    every = predictions
    if len(model.findings) > 1:
        others = predictions_from(scored, [*subgroups, *ratings], model.findings).frame
        others = others[others["finding"] != model.findings[0]]
        every = Predictions.from_frame(pd.concat([predictions.frame, others], ignore_index=True))
    judged_findings = evaluate_findings(every, points)
    cases = [case for case, _ in judged]
    codes = {"patients seen in training": len(labelled) - len(unseen), "rejected": len(unseen) - len(judged)}
    flow = Flow(
        given=len(manifest.cases) + manifest.repeated_rows,
        excluded={name: count for name, count in codes.items() if count},
        unlabelled=len(manifest.cases) - len(labelled),
        splits={
            "judged": SplitCounts(
                len(cases), len({case.patient_id for case in cases}), sum(case.label == 1 for case in cases)
            )
        },
    )
    shown = ReportSources(
        title=f"{description.name} on {manifest.path.name}",
        model=model.label,
        calibration=model.members[0].calibrators[0].describe(),
        predictions=predictions,
        evaluation=judged_findings.first,
        findings=judged_findings,
        judged_on=manifest.path.name,
        description=description,
        label=description.label,
        flow=flow,
        subgroups=subgroups,
        readers=readers,
        preprocessing=preprocessing_facts(description),
        provenance=provenance_facts(description),
    )
    return shown, every


def _champion_beside(
    model_name: str, model: Model, judged: ReportSources, cases: Sequence[Case], root: Path
) -> ChampionBeside | str:
    name = registered_name(model_name)
    if name is None and ":/" in model_name:  # a run's model: its configuration says where it belongs
        name = ((model.description.provenance.get("config") or {}).get("tracking") or {}).get("registered_model")
    point = judged.evaluation.operating_point
    return champion_beside(
        model.description, judged.predictions, cases, point, root=root, registered=name, tracking=Tracking()
    )


def _pictures(
    model: Model, scorer: Scorer, predictions: Predictions, cases: Sequence[Case]
) -> tuple[ReportPicture, ...]:
    by_id = {case.case_id: case for case in cases}

    def input_of(case_id: str) -> NDArray[np.float32] | None:
        outcome = scorer.prepare(by_id[case_id]).outcome
        return outcome.voxels if isinstance(outcome, ModelInput) else None

    networks = [member.network for member in model.members]
    spacing = model.description.preprocessing.spacing_mm
    return mistake_pictures(predictions, lambda _: networks, input_of, spacing_mm=spacing)


def _score_indeterminate(model: Model, manifest: Manifest) -> list[Scored]:
    """Score unlabelled cases whose readers' mean is exactly the middle; only label certainty uses them."""
    if RATING_SCALE.column not in manifest.columns:
        return []
    cases = [case for case in manifest.cases if case.label is None and _rating(case) == RATING_SCALE.middle]
    seen = seen_cases(model.description, cases)
    return score_labelled(model, [case for case in cases if case.case_id not in seen], root=manifest.root)


def _refused(scored: Sequence[Scored]) -> RefusedCases:
    cases = [answer.case for answer in scored if not answer.usable]
    return RefusedCases([int(case.label or 0) for case in cases], [str(case.patient_id) for case in cases])


def _rating(case: Case) -> float | None:
    try:
        return float(case.extra[RATING_SCALE.column])
    except ValueError:
        return None
