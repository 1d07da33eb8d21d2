"""Answers to TRIPOD+AI and CLAIM items that can be computed from an evaluation and its model."""

from __future__ import annotations

from pipeline.evaluation.beside_headline import Details
from pipeline.evaluation.report.checklist import Item, checklist
from pipeline.scoring.model_description import ModelDescription
from pipeline.workflow.reporting.report_sources import ReportSources

CLUSTER_COLUMNS = ("site", "scanner", "manufacturer")  # hospitals and machines
_BALANCED = {
    "none": "nothing was done about it (training.class_balance: none)",
    "weighted_loss": "the loss was weighted by class (training.class_balance: weighted_loss)",
    "balanced_sampler": "both classes were drawn equally often (training.class_balance: balanced_sampler)",
}


def answered_items(sources: ReportSources, details: Details) -> tuple[Item, ...]:
    """The checklist with every answer that can be computed; the other items stay open."""
    evaluation, data, label = sources.evaluation, sources.data, sources.label
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
        intensities = f"{label.intensities} intensities" if label is not None else "intensities not stated"
        known["source"] = f"{data['manifest']}, {data.get('modality', 'modality not given')}, {intensities}"
    if "splits" in data:
        known["partitions"] = f"{data['splits']}; a patient is in one split only; calibrated and judged on splits apart"
    if sources.preprocessing:
        known["preparation"] = "; ".join(f"{name}: {value}" for name, value in sources.preprocessing.items())
    if sources.flow is not None:
        excluded = sum(sources.flow.excluded.values())
        known["flow"] = (
            f"{sources.flow.given} given, {excluded} excluded, {sources.flow.unlabelled} unlabelled; table above"
        )
        known["missing"] = f"{excluded} cases excluded, by code above; nothing is imputed for the model"
        known["numbers"] = "; ".join(
            f"{split}: {counts.cases} cases of {counts.patients} patients, {counts.malignant} malignant"
            for split, counts in sources.flow.splits.items()
        )
    if sources.provenance.get("git commit"):
        known["code"] = f"commit {sources.provenance['git commit']}; package versions are in model.json"
    if sources.differences:
        known["differences"] = "; ".join(sources.differences)
    if sources.description is not None:
        known |= _of_model(sources, sources.description)
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


def _of_model(sources: ReportSources, description: ModelDescription) -> dict[str, str]:
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
        "model": f"{network}, calibrated by {sources.calibration}",
        "calculation": f"logit of the network{', plus that of the columns' if columns else ''}, calibrated by "
        f"{sources.calibration}, by the code that scores new cases",
        "specification": f"weights and model.json of digest {description.digests.model[:12]}: network, preprocessing, "
        "calibrator, thresholds",
    }
    if description.envelope is not None:
        known["poor_input"] = "a scan that cannot be read or lies outside the acceptance envelope gets a code, not a "
        known["poor_input"] += "probability; one near its edge is flagged"
    training = (description.provenance.get("config") or {}).get("training") or {}
    if training.get("class_balance") in _BALANCED:
        known["balance"] = f"{_BALANCED[training['class_balance']]}; calibrated afterwards by {sources.calibration}"
    updated = description.provenance.get("recalibration")
    if updated is None:
        return known | dict.fromkeys(("updating", "updated"), "the model was not updated after its training")
    return known | {
        "updating": "the intercept was refitted and thresholds were chosen again on labelled cases of the place of use",
        "updated": f"log odds shifted by {updated['intercept_shift']:+.3f}; the figures above are of the updated model",
    }
