"""Plan of a training by its number of labelled cases: a test split or cross-validation, one network or several.

Decided from the table alone, before a scan is read, so that a training without enough cases is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cases.case import Case
from pipeline.config.inputs import SPLITS

Auto = Literal["auto"]
# Patients of the rarer class. Below so many, a test split of 15 % would hold fewer than 15 of them, and the AUROC's
# interval would be about 0.1 to either side: cross-validation judges every case instead.
FOLDS_BELOW, FOLDS = 100, 5
# Below so many patients of the rarer class, cases spent on validation and calibration are missed in training: so many
# networks leave out parts in turn, and spend none. The fewer cases, the smaller the part that each should miss.
MEMBERS_BELOW = ((300, 5), (1000, 3))
# Patients of the rarer class in a calibration split, of which a slope and a threshold are more than chance: Collins,
# Ogundimu and Altman (2016) ask for 100 events and 100 others to judge a model, and fitting asks no less.
CALIBRATION_NEEDS = 100
_FEW = 25  # cases of the rarer class: fewer make a calibrator or a threshold a matter of chance
_TYPICAL_AUROC = 0.85  # for which a split's half-width is stated


@dataclass(frozen=True)
class CaseCount:
    """Cases and patients of a split, by class.

    Attributes:
        malignant: cases.
        benign: cases.
        malignant_patients: patients with a malignant case.
        benign_patients: patients with a benign case.
        patients: all of them; one with cases of both classes counts once.
    """

    malignant: int
    benign: int
    malignant_patients: int
    benign_patients: int
    patients: int

    @classmethod
    def of(cls, cases: Sequence[Case]) -> CaseCount:
        """Count labelled cases; unlabelled ones are ignored."""
        patients = [{case.patient_id for case in cases if case.label == label} for label in (0, 1)]
        return cls(
            malignant=sum(case.label == 1 for case in cases),
            benign=sum(case.label == 0 for case in cases),
            malignant_patients=len(patients[1]),
            benign_patients=len(patients[0]),
            patients=len(patients[0] | patients[1]),
        )

    @property
    def rarer(self) -> int:
        """Cases of the rarer class."""
        return min(self.malignant, self.benign)

    @property
    def rarer_patients(self) -> int:
        """Patients of the class that fewer patients have."""
        return min(self.malignant_patients, self.benign_patients)

    def __str__(self) -> str:
        return f"{self.malignant + self.benign} cases ({self.malignant} malignant) of {self.patients} patients"


@dataclass(frozen=True)
class Plan:
    """How a training uses its cases.

    Attributes:
        folds: of cross-validation; None judges on a test split.
        members: networks of a model (of each fold).
    """

    folds: int | None
    members: int


def plan_training(cases: Sequence[Case], *, folds: int | Auto | None = "auto", members: int | Auto = "auto") -> Plan:
    """Choose what is ``auto`` by the number of patients of the rarer class; other values are kept.

    Splits that the table names are kept, so that no folds are drawn.

    Args:
        cases: labelled cases with their patients, and their splits where the table names them.
        folds: as configured.
        members: as configured.

    Example:
        >>> from pathlib import Path
        >>> cases = [Case(str(n), "", Path(), patient_id=str(n), label=n % 2) for n in range(40)]
        >>> plan_training(cases)
        Plan(folds=5, members=1)
    """
    rarer = CaseCount.of(cases).rarer_patients
    if folds == "auto":
        named = any(case.split is not None for case in cases)
        folds = None if named or rarer >= FOLDS_BELOW else max(min(FOLDS, rarer), 2)
    if members == "auto":
        # Folds are a model of several networks already, and spend no case on calibration either.
        members = 1 if folds else _members(cases, rarer)
    return Plan(folds, members)


def _members(cases: Sequence[Case], rarer: int) -> int:
    """Networks of a model that a test split judges; no more than there are patients to leave out."""
    named = {case.split for case in cases} - {None}
    members = next((count for below, count in MEMBERS_BELOW if rarer < below), 1)
    if members == 1 and named:
        calibrating = CaseCount.of([case for case in cases if case.split == "calibration"]).rarer_patients
        if "validation" not in named or calibrating < CALIBRATION_NEEDS:
            members = MEMBERS_BELOW[-1][1]
    developing = CaseCount.of([case for case in cases if case.split != "test"]).rarer_patients
    most = developing if named else developing // 2  # of drawn splits the test split takes some, hardly ever half
    return max(min(members, most), 1)


def describe_plan(cases: Sequence[Case], split_of: Mapping[str, str], plan: Plan) -> list[str]:
    """Lines with the cases of each split, and what to use instead where one holds too few.

    Args:
        cases: labelled cases.
        split_of: split by case id, as drawn; with folds, the fold.
        plan: settled.
    """
    total = CaseCount.of(cases)
    networks = "one network" if plan.members == 1 else f"{plan.members} networks, each leaving out another part"
    if plan.folds:
        return [f"{total}; {plan.folds} folds by patient, {networks} a fold; every case is judged out of its fold"]
    counts = {
        name: CaseCount.of([case for case in cases if split_of[case.case_id] == name])
        for name in SPLITS
        if name in split_of.values()
    }
    lines = [f"{total}; {networks}; " + "; ".join(f"{name} {count}" for name, count in counts.items())]
    if plan.members == 1 and counts["calibration"].rarer < _FEW:
        lines.append(
            f"calibration: {counts['calibration'].rarer} cases of the rarer class are few to fit a calibrator and a "
            "threshold on; with training.members=auto and training.early_stopping=null all cases that are not tested do"
        )
    if counts["test"].rarer < _FEW:
        lines.append(
            f"test: {counts['test'].rarer} cases of the rarer class give an AUROC of {_TYPICAL_AUROC:g} to "
            f"±{auroc_half_width(_TYPICAL_AUROC, counts['test'].malignant, counts['test'].benign):.2f} (95 %); "
            f"--folds {FOLDS} judges all {total.malignant + total.benign}"
        )
    return lines


def auroc_half_width(auroc: float, malignant: int, benign: int) -> float:
    """Half the width of the 95 % interval that an AUROC will have, with so many independent cases.

    Args:
        auroc: in [0.5, 1).
        malignant: cases, at least 1.
        benign: cases, at least 1.

    Source: Hanley and McNeil, 1982.
    """
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (auroc * (1 - auroc) + (malignant - 1) * (q1 - auroc**2) + (benign - 1) * (q2 - auroc**2)) / (
        malignant * benign
    )
    return 1.96 * math.sqrt(variance)
