"""What this program knows of the TRIPOD+AI and CLAIM items, from an evaluation and its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.evaluation.beside_headline import Details
from pipeline.evaluation.report.checklist import Item, checklist
from pipeline.scoring.model_description import ModelDescription

if TYPE_CHECKING:
    from pipeline.workflow.reporting.evaluation_files import Judged

CLUSTER_COLUMNS = ("site", "scanner", "manufacturer")  # hospitals and machines, not kinds of people
_BALANCED = {
    "none": "nothing was done about it (training.class_balance: none)",
    "weighted_loss": "the loss was weighted by class (training.class_balance: weighted_loss)",
    "balanced_sampler": "both classes were drawn equally often (training.class_balance: balanced_sampler)",
}


def answered_items(judged: Judged, details: Details) -> tuple[Item, ...]:
    """The checklist with every answer that can be computed; what is unknown stays open, never invented."""
    evaluation, data, label = judged.evaluation, judged.data, judged.label
    known = {
        "size": evaluation.counts,
        "measures": "AUROC, average precision, Brier score, log loss, calibration slope and intercept, ECE with "
        "its null, decision curve, sensitivity to NPV; 95 % intervals "
        + ("by case" if evaluation.patients_unknown else "with a patient's cases kept together"),
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
    if judged.flow is not None:
        excluded = sum(judged.flow.excluded.values())
        known["flow"] = (
            f"{judged.flow.given} given, {excluded} excluded, {judged.flow.unlabelled} unlabelled; table above"
        )
        known["missing"] = f"{excluded} cases excluded, by code above; nothing is imputed for the model"
        known["numbers"] = "; ".join(
            f"{split}: {counts.cases} cases of {counts.patients} patients, {counts.malignant} malignant"
            for split, counts in judged.flow.splits.items()
        )
    if judged.provenance.get("git commit"):
        known["code"] = f"commit {judged.provenance['git commit']}; package versions are in model.json"
    if judged.differences:
        known["differences"] = "; ".join(judged.differences)
    if judged.description is not None:
        known |= _of_model(judged, judged.description)
    return checklist(known | _of_groups(details))


def _of_groups(details: Details) -> dict[str, str]:
    columns = list(dict.fromkeys(group.column for group in details.subgroups))
    clusters = [name for name in columns if name in CLUSTER_COLUMNS]
    known = {}
    if columns:
        known["fairness"] = f"performance is compared by {', '.join(columns)}, above; training does nothing about it"
    if clusters:
        known["clusters"] = f"each of {', '.join(clusters)} is judged by itself; the model has no term for them"
        known["cluster_results"] = f"by {', '.join(clusters)}, above"
    return known


def _of_model(judged: Judged, description: ModelDescription) -> dict[str, str]:
    """Answers that ``model.json`` holds."""
    columns, network = description.covariates, f"{description.network.name}, {description.dimensions}D"
    intensity = description.preprocessing.intensity
    known = {
        "predictors": "; ".join([f"the image: {description.input_contract}", *(f"column {name}" for name in columns)]),
        "handling": "; ".join(
            [
                f"image: {intensity.scaling}, as under preprocessing",
                *(f"{name}: {'logarithm, ' if scale == 'log' else ''}standardised" for name, scale in columns.items()),
            ]
        ),
        "model": f"{network}, calibrated by {judged.calibration}",
        "calculation": f"logit of the network{', plus that of the columns' if columns else ''}, calibrated by "
        f"{judged.calibration}, by the code that scores new cases",
        "specification": f"weights and model.json of digest {description.digests.model[:12]}: network, preprocessing, "
        "calibrator, thresholds",
    }
    if description.envelope is not None:
        known["poor_input"] = "a scan that cannot be read or lies outside the acceptance envelope gets a code, not a "
        known["poor_input"] += "probability; one near its edge is flagged"
    training = (description.provenance.get("config") or {}).get("training") or {}
    if training.get("class_balance") in _BALANCED:
        known["balance"] = f"{_BALANCED[training['class_balance']]}; calibrated afterwards by {judged.calibration}"
    updated = description.provenance.get("recalibration")
    if updated is None:
        return known | dict.fromkeys(("updating", "updated"), "the model was not updated after its training")
    return known | {
        "updating": "the intercept was refitted and thresholds were chosen anew on labelled cases of the place of use",
        "updated": f"log odds shifted by {updated['intercept_shift']:+.3f}; the figures above are of the updated model",
    }


def label_words(judged: Judged) -> str:
    """Whether the intensities are real or simulated, as the label's description says."""
    return f"{judged.label.intensities} intensities" if judged.label is not None else "intensities not stated"
