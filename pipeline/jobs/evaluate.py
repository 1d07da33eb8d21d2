"""``malignancy evaluate``: judge a model on labelled cases, or predictions made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.findings import class_names, finding_labels, require_both_values, require_findings
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.errors import Code, TableError, UsageError
from pipeline.evaluation.calibration_outcome import CalibrationOutcome
from pipeline.evaluation.certainty import RATING_COLUMN, Scale
from pipeline.evaluation.conformal import ReferZone
from pipeline.evaluation.intervals import OUT_OF_FOLD, Interval
from pipeline.evaluation.multilabel import evaluate_findings, in_order
from pipeline.evaluation.operating_points import OperatingPoint, choose_operating_point
from pipeline.evaluation.predictions import Predictions, read_predictions
from pipeline.evaluation.refused import RefusedCases
from pipeline.evaluation.report import Flow, Picture, SplitCounts
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.seeds import seeds_of
from pipeline.files import atomic_folder, require_free
from pipeline.imaging.preprocess import ModelInput
from pipeline.scoring.engine import score_cases
from pipeline.scoring.model_directory import Model, load_model
from pipeline.scoring.rows import ScoreRow
from pipeline.scoring.scorer import Scorer
from pipeline.tracking.promotion import registered_name
from pipeline.tracking.registry import model_folder
from pipeline.workflow.candidates import ChampionBeside, champion_beside
from pipeline.workflow.labelled import (
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
from pipeline.workflow.mistakes import mistake_pictures
from pipeline.workflow.reader_table import read_reader_scores, require_known_cases, study_or_reason
from pipeline.workflow.reporting import Judged, preprocessing_facts, provenance_facts, write_evaluation
from pipeline.workflow.summary import champion_text, evaluation_text, refused_text
from pipeline.workflow.table_truth import truth_differences


@dataclass(frozen=True)
class EvaluateOptions:
    """What is judged beside the model itself.

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


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it stands.

    Attributes:
        folder: ``report.html``, ``evaluation.json``, ``predictions.parquet`` and figures.
        evaluation: of the label.
        rejected: score rows of the cases that got no probability.
        summary: what the command prints.
    """

    folder: Path
    evaluation: Evaluation
    rejected: tuple[ScoreRow, ...]
    summary: str

    @property
    def intervals(self) -> Mapping[str, Interval]:
        """Statistics with their intervals, as ``intervals["auroc"]``; those that the cases do not define are absent."""
        return self.evaluation.intervals

    @property
    def calibration(self) -> CalibrationOutcome:
        """Whether calibration is shown, not shown or refuted, and why."""
        return self.evaluation.calibration

    @property
    def report(self) -> Path:
        """The page about the model."""
        return self.folder / "report.html"


def evaluate_model(
    model_name: str, manifest_path: Path, out: Path, options: EvaluateOptions | None = None
) -> EvaluationResult:
    """Score the labelled cases of a manifest and judge the model on them, all together.

    Cases of patients that the model has seen are left out and counted, because a model may not be judged on them.

    Args:
        model_name: model directory or MLflow model URI.
        manifest_path: labelled cases.
        out: new folder.
        options: what is judged besides.

    Raises:
        TableError: when the manifest has a fault, or too few cases are left.
        UsageError: when ``out`` is not a new folder.
    """
    options = options or EvaluateOptions()
    require_free(out)
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    scores = _reader_scores(options.readers, [case.case_id for case in manifest.cases], "the manifest")
    model = load_model(model_folder(model_name, Tracking()))
    require_findings(manifest, model.findings)
    labelled = [case for case in manifest.cases if case.label is not None]
    seen = seen_cases(model.description, labelled)
    scorer = Scorer(model, root=manifest.root)
    new = [case for case in labelled if case.case_id not in seen]
    scored = [Scored(case, row) for case, row in zip(new, score_cases(scorer, new), strict=True)]
    known_images = seen_images(model.description, scored)
    scored = [each for each in scored if each.case.case_id not in known_images]
    unseen, rows = [each.case for each in scored], [each.row for each in scored]
    findings = _known(model, manifest, unseen)
    judged_rows = [(each.case, each.row) for each in scored if each.usable]
    if len({case.label for case, _ in judged_rows}) < 2:
        rejections = [f"{row.code}: {row.reason}" for row in rows if row.probability is None]
        first = f" (first: {rejections[0]})" if rejections else ""
        raise TableError(
            Code.E_ONE_CLASS,
            manifest_path,
            f"{len(labelled)} labelled cases, {len(labelled) - len(unseen)} of patients or images that the model has "
            "seen, "
            f"{len(rejections)} rejected{first}: what is left has not both classes; "
            "give cases of other patients",
        )
    differences = truth_differences(
        manifest.facts, label_source=model.description.label.source, intensities=model.description.label.intensities
    )
    doubtful = [each for each in _score_indeterminate(model, manifest) if each.usable]
    judged, predictions = _judged(model, manifest, labelled, unseen, judged_rows, doubtful, findings)
    cases = [case for case, _ in judged_rows]
    beside = _champion_beside(model_name, model, judged, cases, manifest.root) if options.champion else "not asked for"
    study = study_or_reason(judged.predictions, scores)
    shown = _pictures(model, scorer, judged.predictions, cases) if options.pictures else ()
    unread = [each.case for each in scored if not each.usable]
    refused = RefusedCases([int(case.label or 0) for case in unread], [str(case.patient_id) for case in unread])
    judged = replace(
        judged,
        refused=refused,
        prevalence=options.prevalence,
        reader_study=study,
        champion=beside,
        pictures=shown,
        differences=tuple(differences.lines),
    )
    lines = _write(judged, out, all_predictions=predictions, refer_zone=model.refer_zone)
    rejected = tuple(row for row in rows if row.probability is None)
    lines += [*differences.lines, champion_text(beside)]
    lines += [one_line(f"rejected {row.case_id}: {row.code}: {row.reason}") for row in rejected]
    lines.append(f"{len(seen) + len(known_images)} cases of patients that the model has seen were left out")
    doubts = (known_images_text(known_images), doubted_patients(model.description, labelled))
    lines += [f"warning: {doubt}" for doubt in doubts if doubt]
    return EvaluationResult(out, judged.evaluation, rejected, "\n".join(lines))


def evaluate_predictions(
    path: Path, out: Path, *, prevalence: float | None = None, readers: Path | None = None
) -> EvaluationResult:
    """Judge the test split of a predictions file, each finding by itself.

    The operating points are chosen on its calibration split.

    Args:
        path: of the predictions.
        out: new folder.
        prevalence: share of malignant cases to restate net benefit and predictive values for.
        readers: table of readers' scores of the test cases, whose average the model is compared with.

    Raises:
        UsageError: when the file cannot be used, or a finding lacks a class in one of the two splits.
    """
    require_free(out)
    predictions = read_predictions(path)
    scores = _reader_scores(readers, predictions.case_ids.tolist(), "the predictions")
    seeds = seeds_of(predictions)
    first = predictions.where(seed=seeds[0]) if len(seeds) > 1 else predictions
    names = in_order(predictions.frame["finding"].tolist())
    points = {name: _point(first.where(finding=name), name, path) for name in names}
    findings = evaluate_findings(first.where(split="test"), points)
    judged = Judged(
        title=path.name,
        model="predictions of unnamed origin",
        calibration="as given",
        predictions=first.where(split="test", finding=names[0]),
        evaluation=findings.first,
        findings=findings,
        # The lowest seed number, not the best: the others are shown as a spread.
        judged_on="test split" if len(seeds) < 2 else f"test split, seed {seeds[0]} of {len(seeds)}",
        all_seeds=predictions.where(split="test", finding=names[0]) if len(seeds) > 1 else None,
        prevalence=prevalence,
    )
    judged = replace(judged, reader_study=study_or_reason(judged.predictions, scores))
    calibration = first.where(split="calibration", finding=names[0])
    lines = _write(judged, out, all_predictions=predictions, calibration=calibration)
    return EvaluationResult(out, judged.evaluation, (), "\n".join(lines))


def _point(predictions: Predictions, finding: str, path: Path) -> OperatingPoint:
    """The threshold of one finding; both splits must have both classes, or there is nothing to choose or judge."""
    positive, negative = class_names(finding)
    calibration, test = (predictions.where(split=name).labelled() for name in ("calibration", "test"))
    if not len(calibration) or not len(test):
        raise UsageError(
            f"{path}: has {len(calibration)} labelled calibration and {len(test)} labelled test rows of finding "
            f"{finding!r}; a threshold is chosen on the one and judged on the other, so both are needed"
        )
    for name, split in (("calibration", calibration), ("test", test)):
        present = int(split.labels.sum())
        if present in (0, len(split)):
            raise UsageError(
                f"{path}: split {name!r} has {len(split) - present} {negative} and {present} {positive} rows; each "
                "split needs both; add cases, or leave the finding out"
            )
    return choose_operating_point(calibration.labels, calibration.probabilities, rule="sensitivity", target=0.95)


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
) -> tuple[Judged, Predictions]:
    """What is shown, and every row that ``predictions.parquet`` holds."""
    description = model.description
    points = {
        name: point for name, point in zip(model.findings, model.operating_points, strict=True) if name in findings
    }
    subgroups = subgroup_columns(manifest, description)
    ratings = [RATING_COLUMN] if RATING_COLUMN in manifest.columns else []
    readers = reader_columns(manifest, description)
    ratings += [name for name in (readers.names if readers else ()) if name not in (*subgroups, *ratings)]
    scored = [Scored(*each) for each in judged]
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
    shown = Judged(
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
    model_name: str, model: Model, judged: Judged, cases: Sequence[Case], root: Path
) -> ChampionBeside | str:
    name = registered_name(model_name)
    if name is None and ":/" in model_name:  # a run's model: its configuration says where it belongs
        name = ((model.description.provenance.get("config") or {}).get("tracking") or {}).get("registered_model")
    point = judged.evaluation.operating_point
    return champion_beside(
        model.description, judged.predictions, cases, point, root=root, registered=name, tracking=Tracking()
    )


def _pictures(model: Model, scorer: Scorer, predictions: Predictions, cases: Sequence[Case]) -> tuple[Picture, ...]:
    by_id = {case.case_id: case for case in cases}

    def input_of(case_id: str) -> NDArray[np.float32] | None:
        outcome = scorer.prepare(by_id[case_id]).outcome
        return outcome.voxels if isinstance(outcome, ModelInput) else None

    networks = [member.network for member in model.members]
    spacing = model.description.preprocessing.spacing_mm
    return mistake_pictures(predictions, lambda _: networks, input_of, spacing_mm=spacing)


def _score_indeterminate(model: Model, manifest: Manifest) -> list[Scored]:
    """Unlabelled cases that readers put exactly in the middle: they count by label certainty alone."""
    if RATING_COLUMN not in manifest.columns:
        return []
    cases = [case for case in manifest.cases if case.label is None and _rating(case) == Scale().middle]
    seen = seen_cases(model.description, cases)
    return score_labelled(model, [case for case in cases if case.case_id not in seen], root=manifest.root)


def _rating(case: Case) -> float | None:
    try:
        return float(case.extra[RATING_COLUMN])
    except ValueError:
        return None


def _reader_scores(path: Path | None, case_ids: Sequence[str], where: str) -> pd.DataFrame | None:
    """Readers' scores, every case of which is one of ``case_ids``; None without a table."""
    if path is None:
        return None
    scores = read_reader_scores(path)
    require_known_cases(scores, case_ids, path, where=where)
    return scores


def _write(
    judged: Judged,
    out: Path,
    *,
    all_predictions: Predictions | None = None,
    calibration: Predictions | None = None,
    refer_zone: ReferZone | None = None,
) -> list[str]:
    """Write the folder, and return what the command prints of it."""
    with atomic_folder(out) as folder:
        write_evaluation(
            judged, folder, all_predictions=all_predictions, calibration=calibration, refer_zone=refer_zone
        )
    lines = [evaluation_text(judged.title, judged.evaluation, judged.findings)]
    lines.append(f"  {refused_text(judged.with_refused)}")
    if judged.predictions.out_of_fold:
        lines.append(f"  {OUT_OF_FOLD}")
    study = judged.reader_study
    if isinstance(study, str):
        lines.append(f"  {study}")
    elif study is not None:
        lines.append(
            f"  AUROC less that of {len(study.readers)} readers on average: {study.gain}, on {study.n_cases} cases"
        )
    return [*lines, f"report: {out / 'report.html'}"]
