"""Four patient-disjoint splits, each with one job.

``train`` fits the weights; ``validation`` stops training and picks the checkpoint; ``calibration`` fits
the calibrator and chooses thresholds; ``test`` judges. A patient is never in two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest
from pipeline.config import SPLITS, SplitFractions
from pipeline.errors import Code, TableError
from pipeline.files import sha256_json

_FOLDS = 20  # shares are honoured to 1/20


@dataclass(frozen=True)
class Splits:
    """Which labelled case is in which split.

    Attributes:
        of: split name by case_id; unlabelled cases are absent.
        source: ``manifest`` (its column) or ``seeded`` (drawn here).
        digest: hex SHA-256 of the assignment.
    """

    of: Mapping[str, str]
    source: Literal["manifest", "seeded"]
    digest: str


def assign_splits(manifest: Manifest, fractions: SplitFractions, *, seed: int) -> Splits:
    """Take the manifest's splits, or draw patient-grouped, label-stratified ones.

    Args:
        manifest: with labels and patients; its faults must have been raised before.
        fractions: share of each split; used when no labelled case names a split.
        seed: of the drawing.

    Raises:
        TableError: when a split would lack a class.
    """
    cases = [case for case in manifest.cases if case.label is not None]
    named = [case.split is not None for case in cases]
    if any(named) and not all(named):
        blank = cases[named.index(False)].case_id
        raise TableError(
            Code.E_SPLIT_VALUE,
            manifest.path,
            f"{named.count(False)} labelled cases have no split (first: {blank!r}); fill or clear the column",
        )
    if any(named):
        of = {case.case_id: str(case.split) for case in cases}
    else:
        of = _draw(manifest, cases, fractions, seed)
    _require_both_classes(manifest, cases, of)
    return Splits(of=of, source="manifest" if any(named) else "seeded", digest=sha256_json(of))


def patient_folds(cases: Sequence[Case], folds: int, *, seed: int) -> list[int]:
    """Fold number of each labelled case: whole patients, similar share of malignant cases in each fold.

    Raises:
        ValueError: with fewer cases of a class than folds.
    """
    labels = np.array([case.label for case in cases])
    patients = np.array([case.patient_id for case in cases])
    number = np.empty(len(cases), int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(labels, labels, patients)):
        number[members] = fold
    return [int(fold) for fold in number]


def _draw(manifest: Manifest, cases: Sequence[Case], fractions: SplitFractions, seed: int) -> dict[str, str]:
    patients_with = [len({case.patient_id for case in cases if case.label == label}) for label in (0, 1)]
    folds = min(_FOLDS, *patients_with)
    if folds < len(SPLITS):
        raise TableError(
            Code.E_ONE_CLASS,
            manifest.path,
            f"{patients_with[0]} patients with benign and {patients_with[1]} with malignant cases; "
            f"four splits need at least {len(SPLITS)} of each",
        )
    names = _fold_names(fractions, folds)
    numbers = patient_folds(cases, folds, seed=seed)
    return {case.case_id: names[number] for case, number in zip(cases, numbers, strict=True)}


def _fold_names(fractions: SplitFractions, folds: int) -> list[str]:
    """A split for each fold: at least one each, the rest by largest remainder."""
    counts = dict.fromkeys(SPLITS, 1)
    for _ in range(folds - len(SPLITS)):
        counts[max(SPLITS, key=lambda name: getattr(fractions, name) * folds - counts[name])] += 1
    return [name for name in SPLITS for _ in range(counts[name])]


def _require_both_classes(manifest: Manifest, cases: Sequence[Case], of: Mapping[str, str]) -> None:
    for name in SPLITS:
        labels = [case.label for case in cases if of[case.case_id] == name]
        if len(set(labels)) < 2:
            raise TableError(
                Code.E_ONE_CLASS,
                manifest.path,
                f"split {name!r} has {labels.count(0)} benign and {labels.count(1)} malignant cases, "
                "each split needs both; label more cases, or clear the split column to have splits drawn",
            )
