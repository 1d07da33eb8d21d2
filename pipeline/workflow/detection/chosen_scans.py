"""Choose the scans of a table for evaluating a detector, and for fitting the probability of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.cases.case import Case
from pipeline.cases.scan_table import ScanTable
from pipeline.errors import UsageError
from pipeline.scoring.model_description import PatientHashes

_TRAINED_ON = ("train", "validation")


@dataclass(frozen=True)
class ChosenScans:
    """Scans by their use.

    Attributes:
        judged: of patients that no model has seen: the test split, or all where the table names no split.
        calibration: of patients that no model was trained on: the calibration split, or the detector's calibration
            patients where the table names no split.
        left_out: how many of the judged ones were left out, by reason.
    """

    judged: tuple[Case, ...]
    calibration: tuple[Case, ...]
    left_out: Mapping[str, int]


def choose_judged_scans(
    table: ScanTable, detector: PatientHashes, classifier: PatientHashes | None = None
) -> ChosenScans:
    """Choose the scans.

    Args:
        table: of the scans.
        detector: patients that it has seen.
        classifier: patients that the classifier has seen; None without one.

    Raises:
        UsageError: when no scan is left to judge.
    """
    cases = table.scans.cases
    named = any(case.split is not None for case in cases)
    chosen = [case for case in cases if not named or case.split == "test"]
    seen = {"patients that the detector has seen": _patients_seen(detector, chosen)}
    if classifier is not None:
        seen["patients that the classifier has seen"] = _patients_seen(classifier, chosen)
    judged, left_out = chosen, {}
    for reason, patients in seen.items():
        unseen = [case for case in judged if str(case.patient_id) not in patients]
        left_out[reason] = len(judged) - len(unseen)
        judged = unseen
    if not judged:
        reasons = ", ".join(f"{count} of {reason}" for reason, count in left_out.items() if count) or "no test split"
        raise UsageError(
            f"{table.scans.path}: none of {len(cases)} scans can be judged ({reasons}); give scans of other patients"
        )
    fitted = _patients_seen(detector, cases, splits=("calibration",))
    held_out = [case for case in cases if (case.split == "calibration" if named else str(case.patient_id) in fitted)]
    trained = _patients_seen(detector, held_out, splits=_TRAINED_ON)
    if classifier is not None:
        trained |= _patients_seen(classifier, held_out, splits=_TRAINED_ON)
    calibration = [case for case in held_out if str(case.patient_id) not in trained]
    return ChosenScans(
        tuple(judged), tuple(calibration), {reason: count for reason, count in left_out.items() if count}
    )


def _patients_seen(
    hashes: PatientHashes, cases: Sequence[Case], *, splits: Sequence[str] = (*_TRAINED_ON, "calibration")
) -> set[str]:
    return hashes.seen_patients({str(case.patient_id) for case in cases}, splits=splits)
