"""Patient-level score: the largest of the patient's cases."""

from __future__ import annotations

from pipeline.evaluation.predictions import FOLD_COLUMNS, Predictions


def by_patient(predictions: Predictions) -> Predictions:
    """One row a patient: the largest logit, probability and label over their labelled cases.

    The largest of several calibrated probabilities is not itself calibrated: the more cases a patient has, the more it
    is too high. Evaluate its ranking and its decisions only.

    Args:
        predictions: of one finding, one row a case, with probabilities.

    Raises:
        UsageError: when a row has no probability.
    """
    labelled = predictions.labelled()
    labelled.probabilities  # noqa: B018  # refuses rows without one
    keys = ["patient_id", "split", "finding"]
    grouped = labelled.frame.groupby(keys, sort=True, as_index=False)
    of_fold = [name for name in FOLD_COLUMNS if name in labelled.frame.columns]  # a patient is in one fold
    worst = grouped[["logit", "probability", "label", *of_fold]].max()
    return Predictions.from_frame(worst.assign(case_id=worst["patient_id"]), source="patients")


def has_several_cases(predictions: Predictions) -> bool:
    """Whether a patient has more than one labelled case, so that patient and case level differ."""
    return bool(predictions.labelled().frame["patient_id"].duplicated().any())
