"""Four patient-disjoint splits, each with one job.

``train`` fits the weights; ``validation`` stops training and picks the checkpoint; ``calibration`` fits
the calibrator and chooses thresholds; ``test`` judges. A patient is never in two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest
from pipeline.config.inputs import SPLITS, SplitFractions
from pipeline.errors import Code, TableError, UsageError
from pipeline.files import sha256_json

_FOLDS = 20  # shares are kept to 1/20
JOINED_SPLITS = ("train", "test")  # for several members
_PARTS = 8  # of what is not the test fold
AGREEMENT = "agreement"  # a network's name for cases that another one has left out too
_SET_ASIDE = 16  # one patient in so many
_FEWEST_TO_SET_ASIDE = 8  # patients of a class


@dataclass(frozen=True)
class Splits:
    """Which labelled case is in which split.

    Attributes:
        of: split name by case_id; unlabelled cases are absent.
        source: ``manifest`` (its column), or drawn here: ``seeded`` splits, or ``folds`` that each judge once.
        digest: hex SHA-256 of the assignment.
    """

    of: Mapping[str, str]
    source: Literal["manifest", "seeded", "folds"]
    digest: str


def assign_folds(manifest: Manifest, folds: int, *, seed: int) -> Splits:
    """Draw patient-grouped, label-stratified folds, named ``fold-0`` and on; the manifest's own splits are not used.

    Raises:
        UsageError: when a class has too few patients for each fold to have one to train, stop, calibrate and test on.
    """
    cases = [case for case in manifest.cases if case.label is not None]
    fewest = min(len({case.patient_id for case in cases if case.label == label}) for label in (0, 1))
    least = max(folds, len(SPLITS))
    if folds < 2 or fewest < least:
        raise UsageError(
            f"{folds} folds (--folds, training.folds): at least 2, and {least} patients of each class are needed; "
            f"{manifest.path} has {fewest} of the rarer one"
        )
    numbers = patient_folds(cases, folds, seed=seed)
    of = {case.case_id: f"fold-{number}" for case, number in zip(cases, numbers, strict=True)}
    return Splits(of=of, source="folds", digest=sha256_json(of))


def split_around_fold(
    cases: Sequence[Case], fold_of: Sequence[str], fold: str, *, validated: bool, seed: int
) -> list[str]:
    """Split of each case when one fold is the test split.

    Args:
        cases: labelled.
        fold_of: the fold of each.
        fold: that is the test split.
        validated: whether 1/8 of the other folds' patients are the validation split; no network is trained on them.
        seed: of the drawing.
    """
    names = ["test" if name == fold else "train" for name in fold_of]
    if validated:
        rest = [index for index, name in enumerate(names) if name == "train"]
        for index, part in zip(rest, patient_folds([cases[index] for index in rest], _PARTS, seed=seed), strict=True):
            names[index] = "validation" if part == 0 else "train"
    return names


def set_aside(cases: Sequence[Case], names: Sequence[str], *, seed: Sequence[int]) -> list[str]:
    """The same splits with one in sixteen of the training patients of each class moved to ``agreement``.

    The network of these splits is not trained on them, and neither was the one that left them out before: how much two
    such networks differ tells how much the mean of all differs from a single one. A class of fewer than 8 training
    patients gives none of them.

    Args:
        cases: labelled.
        names: split of each.
        seed: of the drawing, another one for each network.
    """
    malignant: dict[str | None, bool] = {}
    for case, name in zip(cases, names, strict=True):
        if name == "train":
            malignant[case.patient_id] = malignant.get(case.patient_id, False) or case.label == 1
    rng = np.random.default_rng(np.random.SeedSequence(tuple(seed)))
    taken: set[str | None] = set()
    for wanted in (False, True):
        patients = sorted(str(patient) for patient, value in malignant.items() if value == wanted)
        if len(patients) >= _FEWEST_TO_SET_ASIDE:
            taken.update(rng.choice(patients, max(1, round(len(patients) / _SET_ASIDE)), replace=False).tolist())
    return [
        AGREEMENT if name == "train" and case.patient_id in taken else name
        for case, name in zip(cases, names, strict=True)
    ]


def join_development(splits: Sequence[str]) -> list[str]:
    """The same splits with all but ``test`` called ``train``: what several members train on and calibrate with."""
    return [name if name == "test" else "train" for name in splits]


def leave_out_parts(cases: Sequence[Case], splits: Sequence[str], members: int, *, seed: int) -> list[list[str]]:
    """For each member, splits in which another part of the training patients is the calibration split.

    Every training case is in the calibration split of exactly one member; some are also set aside by another one
    (``set_aside``).

    Raises:
        UsageError: when a class has fewer training patients than members.
    """
    training = [index for index, name in enumerate(splits) if name == "train"]
    fewest = min(
        len({cases[index].patient_id for index in training if cases[index].label == label}) for label in (0, 1)
    )
    if fewest < members:
        raise UsageError(
            f"training.members: {members} members need as many training patients of each class; "
            f"the rarer one has {fewest}"
        )
    parts = patient_folds([cases[index] for index in training], members, seed=seed)
    left_out = []
    for member in range(members):
        names = list(splits)
        for index, part in zip(training, parts, strict=True):
            names[index] = "calibration" if part == member else "train"
        left_out.append(set_aside(cases, names, seed=(seed, member)))
    return left_out


def assign_splits(manifest: Manifest, fractions: SplitFractions, *, seed: int, joined: bool = False) -> Splits:
    """Take the manifest's splits, or draw patient-grouped, label-stratified ones.

    Args:
        manifest: with labels and patients; its faults must have been raised before.
        fractions: share of each split; used when no labelled case names a split.
        seed: of the drawing.
        joined: call all but ``test`` ``train``, for several members.

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
    if joined:
        of = dict(zip(of, join_development(list(of.values())), strict=True))
    _require_both_classes(manifest, cases, of, JOINED_SPLITS if joined else SPLITS)
    return Splits(of=of, source="manifest" if any(named) else "seeded", digest=sha256_json(of))


def assign_scan_splits(manifest: Manifest, with_lesion: Set[str], fractions: SplitFractions, *, seed: int) -> Splits:
    """Take the splits of a table of whole scans, or draw patient-grouped ones stratified by whether a scan has lesions.

    Args:
        manifest: of the scans, each with a patient; whether a scan is malignant does not matter here.
        with_lesion: ids of the scans that hold a lesion to be found.
        fractions: share of each split; used when no scan names a split.
        seed: of the drawing.

    Raises:
        TableError: when a split would hold no lesion, or only some scans name a split.
    """
    cases = [replace(case, label=int(case.case_id in with_lesion)) for case in manifest.cases]
    blank = [case.case_id for case in cases if case.split is None]
    if blank and len(blank) < len(cases):
        reason = f"{len(blank)} scans have no split (first: {blank[0]!r}); fill or clear the column"
        raise TableError(Code.E_SPLIT_VALUE, manifest.path, reason)
    if blank:
        patients = len({case.patient_id for case in cases if case.label})
        if patients < len(SPLITS):
            reason = f"{patients} patients have a lesion; four splits need at least {len(SPLITS)}"
            raise TableError(Code.E_ONE_CLASS, manifest.path, reason)
        folds = min(_FOLDS, patients)
        names = _fold_names(fractions, folds)
        numbers = patient_folds(cases, folds, seed=seed)
        of = {case.case_id: names[number] for case, number in zip(cases, numbers, strict=True)}
    else:
        of = {case.case_id: str(case.split) for case in cases}
    for name in SPLITS:
        if not any(case.label for case in cases if of[case.case_id] == name):
            reason = f"split {name!r} has no scan with a lesion; each split needs one: give more scans"
            raise TableError(Code.E_ONE_CLASS, manifest.path, reason)
    return Splits(of=of, source="seeded" if blank else "manifest", digest=sha256_json(of))


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


def _require_both_classes(
    manifest: Manifest, cases: Sequence[Case], of: Mapping[str, str], splits: Sequence[str]
) -> None:
    for name in splits:
        labels = [case.label for case in cases if of[case.case_id] == name]
        if len(set(labels)) < 2:
            raise TableError(
                Code.E_ONE_CLASS,
                manifest.path,
                f"split {name!r} has {labels.count(0)} benign and {labels.count(1)} malignant cases, "
                "each split needs both; label more cases, or clear the split column to have splits drawn",
            )
