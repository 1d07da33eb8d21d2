"""Sources of a report: its data, and the predictions and models that the rest is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.agreement import ReaderColumns
from pipeline.evaluation.refused import RefusedCases, WithRefused, with_refused
from pipeline.evaluation.report.learning_curve import Epochs
from pipeline.evaluation.report.page import ReportData
from pipeline.scoring.model_description import LabelMeaning, ModelDescription
from pipeline.workflow.judging.comparison import ChampionBeside
from pipeline.workflow.judging.regressions import Comparison


@dataclass(frozen=True, kw_only=True)
class ReportSources(ReportData):
    """The data of a report before it is written, with the sources of its figures, tables and checklist.

    Attributes:
        predictions: the cases that were judged, of the first finding.
        description: of the model; None for predictions of unknown origin.
        label: what the label means; None for predictions of unknown origin.
        differences: how the judged cases' labels or intensities differ in kind from the model's.
        regressions: on the same cases.
        champion: on the same cases, or why it is not beside the model.
        histories: each network's epochs, for the learning curve; empty when nothing was trained.
        subgroups: columns, beside the usual ones.
        prevalence: share of malignant cases where the model is to be used; None where none is stated.
        readers: columns of several readers' ratings; None takes the usual ones.
        all_seeds: the same cases under every seed; None when there is one.
        refused: labelled cases that could not be read; None where that is not known.
    """

    predictions: Predictions
    description: ModelDescription | None = None
    label: LabelMeaning | None = None
    differences: tuple[str, ...] = ()
    regressions: Sequence[Comparison] = ()
    champion: ChampionBeside | str = "predictions alone name no model"
    histories: Sequence[Epochs] = ()
    subgroups: Sequence[str] = ()
    prevalence: float | None = None
    readers: ReaderColumns | None = None
    all_seeds: Predictions | None = None
    refused: RefusedCases | None = None

    def judge_refused(self) -> WithRefused | str:
        """Sensitivity and specificity with the refused cases, or why they are not known."""
        return with_refused(self.predictions, self.refused, threshold=self.evaluation.operating_point.threshold)


def preprocessing_facts(description: ModelDescription) -> dict[str, str]:
    """How scans become inputs, for the report."""
    preprocessing = description.preprocessing
    intensity = preprocessing.intensity
    window = f" {intensity.lower:g} to {intensity.upper:g}" if intensity.lower is not None else ""
    return {
        "input": description.input_contract,
        "intensity": f"{intensity.scaling}{window}",
        "network": f"{description.network.name}, {description.dimensions}D",
        "preprocessing digest": description.digests.preprocessing[:16],
    }


def provenance_facts(description: ModelDescription) -> dict[str, str]:
    """Provenance of the model, for the report."""
    known = description.provenance
    names = ("created_at", "git_commit", "mlflow_run_id", "manifest_sha256", "dataset_sha256", "split_sha256", "seed")
    facts = {name.replace("_", " "): str(known[name]) for name in names if known.get(name) is not None}
    if start := known.get("initial_weights"):
        facts["initial weights"] = f"{start['file']} ({start['source']}), SHA-256 {start['sha256'][:16]}"
    return {
        "model digest": description.digests.model,
        **facts,
        "prevalence at calibration": f"{description.prevalence_at_calibration:.3f}",
    }
