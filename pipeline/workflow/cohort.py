"""The cohort of a training or evaluation: every labelled case prepared once, and the cases left out with reasons."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.cases.cache import StoredInputs
from pipeline.cases.case import Case
from pipeline.cases.covariates import covariates_of
from pipeline.cases.findings import finding_labels, partly_labelled, require_both_values
from pipeline.cases.inspection import Finding, across_splits, conflicting_labels
from pipeline.cases.manifest import Manifest
from pipeline.cases.prepare import prepare_cases
from pipeline.config.experiment import Config
from pipeline.config.inputs import MALIGNANT, SPLITS
from pipeline.config.training import Auxiliary, SoftLabels
from pipeline.errors import CaseError, Code, ConfigError
from pipeline.evaluation.refused import RefusedCases
from pipeline.evaluation.report.page import Flow, SplitCounts
from pipeline.files import sha256_json
from pipeline.imaging.preprocess import ModelInput
from pipeline.progress import with_progress


@dataclass(frozen=True, eq=False)
class Usable:
    """A labelled case with its network input and split."""

    case: Case
    split: str
    input: ModelInput


@dataclass(frozen=True, eq=False)
class Cohort:
    """The usable cases of a manifest, and those left out.

    Attributes:
        usable: labelled cases that could be read, in the manifest's order.
        rejected: cases that could not, with the reason.
        unlabelled: how many rows have a blank label and no other finding to train on.
        repeated_rows: how many rows repeat an earlier one.
        partly: cases without a label that have another finding; nothing is judged on them.
    """

    usable: tuple[Usable, ...]
    rejected: tuple[tuple[Case, CaseError], ...]
    unlabelled: int
    repeated_rows: int
    partly: tuple[Usable, ...] = ()

    def of(self, split: str) -> list[Usable]:
        """The usable cases of one split."""
        return [prepared for prepared in self.usable if prepared.split == split]

    def with_splits(self, names: Sequence[str]) -> Cohort:
        """The same cases, each usable one in another split."""
        pairs = zip(self.usable, names, strict=True)
        return replace(self, usable=tuple(replace(prepared, split=name) for prepared, name in pairs))

    def training(self) -> list[Usable]:
        """Cases to fit the weights on: the training split, and partly labelled cases of patients in no other split.

        It is computed from the present splits, so that it is right for every split and fold.
        """
        return [*self.of("train"), *self.training_alone()]

    def training_alone(self) -> list[Usable]:
        """The partly labelled among them."""
        held_out = {prepared.case.patient_id for prepared in self.usable if prepared.split != "train"}
        return [prepared for prepared in self.partly if prepared.case.patient_id not in held_out]

    def refused(self, split_of: Mapping[str, str]) -> RefusedCases:
        """Labelled cases for evaluation that could not be read.

        Args:
            split_of: split by case_id; those of ``test``, or of any fold, are judged.
        """
        fitted_on = ("train", "validation", "calibration")
        rejected = [case for case, _ in self.rejected if case.label is not None]
        cases = [case for case in rejected if split_of.get(case.case_id, "train") not in fitted_on]
        return RefusedCases([int(case.label or 0) for case in cases], [str(case.patient_id) for case in cases])

    def flow(self) -> Flow:
        """Participant flow of the manifest's rows."""
        codes = Counter(str(error.code) for _, error in self.rejected)
        if self.repeated_rows:
            codes[Code.W_DUPLICATE_ROW] = self.repeated_rows
        splits = {}
        training = self.training()
        for name in dict.fromkeys(prepared.split for prepared in self.usable):
            cases = [prepared.case for prepared in (training if name == "train" else self.of(name))]
            splits[name] = SplitCounts(
                cases=len(cases),
                patients=len({case.patient_id for case in cases}),
                malignant=sum(case.label == 1 for case in cases),
            )
        idle = len(self.partly) - len(self.training_alone())
        return Flow(
            given=len(self.usable) + len(self.partly) + self.unlabelled + codes.total(),
            excluded=dict(sorted(codes.items())),
            unlabelled=self.unlabelled + idle,
            splits={name: splits[name] for name in sorted(splits, key=[*SPLITS, *splits].index)},
        )

    def digest(self, manifest: Manifest) -> str:
        """Digest of the data as used: manifest bytes, and each case's label, split and image bytes."""
        cases = (*self.usable, *self.training_alone())
        rows = [
            [prepared.case.case_id, prepared.case.label, prepared.split, prepared.input.scan.digest]
            for prepared in cases
        ]
        return sha256_json([manifest.digest, sorted(rows)])


def prepare_cohort(manifest: Manifest, split_of: Mapping[str, str], config: Config) -> Cohort:
    """Prepare every labelled case through the one preprocessing function.

    Args:
        manifest: without table faults.
        split_of: split by case_id, for every labelled case.
        config: names the preprocessing, the modality and the findings.

    Raises:
        TableError: E_LABEL_CONFLICT, when one image is labelled both benign and malignant.
    """
    wanted = [case for case in manifest.cases if case.label is not None]
    wanted += partly_labelled(manifest.cases, config.data.findings)
    usable, rejected = [], []
    stored = StoredInputs(config.data.cache) if config.data.cache else None
    outcomes = prepare_cases(
        wanted,
        config.preprocessing,
        modality=config.data.modality,
        root=manifest.root,
        stored=stored,
        covariates=config.data.covariates,
    )
    for case, outcome in with_progress(outcomes, "scans read", total=len(wanted)):
        if isinstance(outcome, CaseError):
            rejected.append((case, outcome))
        else:
            usable.append(Usable(case, split_of.get(case.case_id, "train"), outcome))
    if stored:
        stored.report()
    _require_one_label_an_image(manifest, usable)
    return Cohort(
        usable=tuple(prepared for prepared in usable if prepared.case.label is not None),
        rejected=tuple(rejected),
        unlabelled=len(manifest.cases) - len(wanted),
        repeated_rows=manifest.repeated_rows,
        partly=tuple(prepared for prepared in usable if prepared.case.label is None),
    )


def _require_one_label_an_image(manifest: Manifest, usable: Sequence[Usable]) -> None:
    """Refuse contradictory labels of the same bytes, and print images that are in several splits."""
    findings = [Finding(replace(prepared.case, split=prepared.split), scan=prepared.input.scan) for prepared in usable]
    conflict = conflicting_labels(manifest.path, findings)
    if conflict:
        raise conflict
    leaked = across_splits(findings)
    if leaked:
        print(
            f"warning: {len(leaked)} images are in several splits, under different patients (first: "
            f"{' and '.join(repr(case.case_id) for case in leaked[0][:2])}): figures of them say too much; give them "
            "one patient_id, or keep one case",
            file=sys.stderr,
        )


def require_classes_in_splits(
    cohort: Cohort, manifest: Manifest, findings: Sequence[str] = (MALIGNANT,), *, splits: Sequence[str] = SPLITS
) -> None:
    """Refuse a cohort in which rejections left a split without a class of one of the findings.

    Raises:
        TableError: naming split, finding and the commonest reason.
    """
    codes = Counter(str(error.code) for _, error in cohort.rejected).most_common(1)
    reason = (
        f"; {len(cohort.rejected)} cases were rejected, most of them {codes[0][0]} (first: {cohort.rejected[0][1]})"
        if codes
        else ""
    )
    for name in splits:
        cases = [prepared.case for prepared in (cohort.training() if name == "train" else cohort.of(name))]
        require_both_values(finding_labels(cases, findings), findings, path=manifest.path, split=name, why=reason)


def soft_targets(cases: Sequence[Case], config: SoftLabels) -> list[float]:
    """Targets of the loss in [0, 1]: the configured column, linear between its two ends; the label where it is blank.

    Raises:
        ConfigError: when a value is no number, or beyond the ends.
    """
    targets = []
    for case in cases:
        text = case.extra[config.column].strip()
        try:
            value = (float(text) - config.lowest) / (config.highest - config.lowest) if text else float(case.label or 0)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise ConfigError(
                f"training.soft_labels: case {case.case_id!r} has {config.column} {text!r}, expected a number from "
                f"{config.lowest:g} to {config.highest:g}; correct it or the two ends"
            )
        targets.append(value)
    return targets


def auxiliary_targets(cases: Sequence[Case], config: Auxiliary) -> npt.NDArray[np.float64]:
    """The configured columns (N, K), each of mean 0 and variance 1 over these cases; NaN where a cell is blank.

    Raises:
        ConfigError: when a filled cell is no number, is not above 0 on the log scale, or a column does not vary.
    """
    table = extra_frame(cases, tuple(config.columns))
    columns = []
    for name, scale in config.columns.items():
        key = f"training.auxiliary.columns: {name}"
        if table[name].dtype != np.float64:
            raise ConfigError(f"{key}: holds text that is no number; correct the column or leave it out")
        values = table[name].to_numpy()
        if scale == "log":
            if (values <= 0).any():
                raise ConfigError(f"{key}: holds {np.nanmin(values):g}, which has no logarithm; use scale 'linear'")
            values = np.log(values)
        spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
        if spread == 0.0:
            raise ConfigError(f"{key}: is the same in all {len(cases)} training cases; leave it out")
        columns.append((values - np.nanmean(values)) / spread)
    return np.stack(columns, axis=1)


def covariate_values(usable: Sequence[Usable], config: Config) -> npt.NDArray[np.float64]:
    """The configured covariates of cases, (N, K), in the columns' own units."""
    columns = list(config.data.covariates)
    return np.array([covariates_of(prepared.input.measures, columns) for prepared in usable]).reshape(
        len(usable), len(columns)
    )


def extra_frame(cases: Sequence[Case], columns: Sequence[str]) -> pd.DataFrame:
    """Extra columns of cases: numbers where every filled cell is one, text otherwise; blank cells are missing."""
    frame = pd.DataFrame({name: [case.extra[name].strip() or None for case in cases] for name in columns}, dtype=object)
    for name in frame:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if bool((numbers.notna() == frame[name].notna()).all()):
            frame[name] = numbers.astype(np.float64)
    return frame
