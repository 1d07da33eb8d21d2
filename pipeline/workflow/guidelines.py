"""What this program knows of the TRIPOD+AI and CLAIM items, from an evaluation and its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.evaluation.checklist import Item, checklist
from pipeline.evaluation.details import Details

if TYPE_CHECKING:
    from pipeline.workflow.reporting import Judged


def answered_items(judged: Judged, details: Details) -> tuple[Item, ...]:
    """The checklist with every answer that can be computed; what is unknown stays open, never invented."""
    evaluation, data, label = judged.evaluation, judged.data, judged.label
    known = {
        "size": f"{evaluation.n_cases} cases of {evaluation.n_patients} patients, {evaluation.n_positive} malignant",
        "measures": "AUROC, average precision, Brier score, log loss, calibration slope and intercept, ECE with "
        "its null, decision curve, sensitivity to NPV; 95 % intervals with a patient's cases kept together",
        "output": f"probability of malignancy; positive at {evaluation.operating_point.describe()}",
    }
    if "auroc" in evaluation.intervals:
        known["performance"] = f"AUROC {evaluation['auroc']}; all statistics above"
    if label is not None:
        known["outcome"] = f"1 = malignant; {label.source}"
    if "manifest" in data:
        known["source"] = f"{data['manifest']}, {data.get('modality', 'modality not given')}, {label_words(judged)}"
    if "splits" in data:
        known["partitions"] = f"{data['splits']}; a patient is in one split only; calibrated and judged on splits apart"
    if judged.preprocessing:
        known["preparation"] = "; ".join(f"{name}: {value}" for name, value in judged.preprocessing.items())
        known["predictors"] = f"the image alone: {judged.preprocessing.get('input', 'see preprocessing')}"
        known["model"] = f"{judged.preprocessing.get('network', 'network')}, calibrated by {judged.calibration}"
    if judged.flow is not None:
        excluded = sum(judged.flow.excluded.values())
        known["flow"] = (
            f"{judged.flow.given} given, {excluded} excluded, {judged.flow.unlabelled} unlabelled; table above"
        )
        known["missing"] = f"{excluded} cases excluded, by code above; nothing is imputed for the model"
    if judged.provenance.get("git commit"):
        known["code"] = f"commit {judged.provenance['git commit']}; package versions are in model.json"
    if details.subgroups:
        known["fairness"] = f"by {', '.join(dict.fromkeys(each.column for each in details.subgroups))}, above"
    return checklist(known)


def label_words(judged: Judged) -> str:
    """Whether the intensities are real or simulated, as the label's description says."""
    return f"{judged.label.intensities} intensities" if judged.label is not None else "intensities not stated"
