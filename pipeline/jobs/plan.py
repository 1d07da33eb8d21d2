"""``malignancy plan``: before training, how cases would be used, and the precision expected of the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.cases.case import Case
from pipeline.cases.manifest import read_manifest
from pipeline.cases.plan import CaseCount, Plan, describe_plan, plan_training
from pipeline.cases.splits import Splits, assign_folds, assign_splits
from pipeline.config.experiment import Config
from pipeline.config.gate_policy import GatePolicy
from pipeline.config.inputs import SplitFractions
from pipeline.console import table_text
from pipeline.errors import CalibrationError
from pipeline.evaluation.decisions.operating_points import needed_cases
from pipeline.evaluation.decisions.refer_zone import CASES_A_CLASS
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.planning.expected_precision import (
    TARGETS,
    Assumed,
    JudgedSize,
    detectable_gaps,
    expected_intervals,
    half_width,
    patients_needed,
    riley_cases,
)
from pipeline.evaluation.planning.sample_size import DevelopmentSize, cases_for_regression, r_squared_of
from pipeline.files import write_json
from pipeline.workflow.learning.experiment import labelled_cases, read_experiment

SUBGROUP_SHARES = (0.5, 0.2)  # of the patients in a subgroup, for the smallest gap
_CONFIDENCE, _TARGET = 0.9, 0.95
_NAMES = {
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity at that threshold",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "observed_expected": "observed over expected",
    "net_benefit": "net benefit at that threshold",
}


@dataclass(frozen=True, eq=False)
class Outlook:
    """Plan of a training, and the precision expected of its evaluation.

    Attributes:
        lines: how a training would use the cases.
        calibrating: cases that fit calibrator and thresholds.
        judging: cases that judge: the test split, or with folds all of them.
        assumed: of the model that will be trained.
        size: effective size of the judging cases.
        intervals: expected of each statistic.
        needed: patients like those that judge, in all, that bring each statistic to its target half-width.
        gaps: smallest gap of a subgroup that could be shown, by its share of the patients and by statistic.
        published: independent cases by Riley et al., 2021.
        regression: cases for the regression that calibrates (Riley et al., 2020).
        parameters: slopes of that regression: the logit, and covariates.
        conditions: cases that the gate, a confidence and a refer zone need.
    """

    lines: tuple[str, ...]
    calibrating: CaseCount
    judging: CaseCount
    assumed: Assumed
    size: JudgedSize
    intervals: dict[str, Interval]
    needed: dict[str, int]
    gaps: dict[float, dict[str, float]]
    published: dict[str, int]
    regression: DevelopmentSize
    parameters: int
    conditions: tuple[Condition, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "plan": list(self.lines),
            "calibrating": asdict(self.calibrating),
            "judging": asdict(self.judging),
            "assumed": asdict(self.assumed) | {"specificity": self.assumed.specificity},
            "worth": asdict(self.size),
            "expected": {name: interval.to_json() for name, interval in self.intervals.items()},
            "targets": dict(TARGETS),
            "patients_needed": dict(self.needed),
            "smallest_gap": {f"{share:g}": gaps for share, gaps in self.gaps.items()},
            "riley_2021_cases": dict(self.published),
            "riley_2020_cases": asdict(self.regression) | {"parameters": self.parameters},
            "conditions": [asdict(condition) for condition in self.conditions],
        }

    @property
    def summary(self) -> str:
        """What the command prints."""
        return "\n".join(_summary_lines(self))


def plan(manifest_path: Path, *, config_path: Path | None, assumed: Assumed, json_file: Path | None) -> Outlook:
    """Plan a training from the labelled cases of a manifest; no scan is opened.

    Args:
        manifest_path: the table.
        config_path: whose splits, folds, members, covariates and label words are taken; by default splits of 55, 15,
            15 and 15 %, with folds and members as ``auto`` settles them.
        assumed: of the model that will be trained.
        json_file: where everything goes.

    Raises:
        UsageError: when the table or the configuration has a fault, or cannot be split.
    """
    cases, splits, settled, config = _splits(manifest_path, config_path)
    outlook = look_ahead(cases, splits, settled, assumed=assumed, config=config)
    if json_file is not None:
        write_json(json_file, outlook.to_json())
    return outlook


def _splits(manifest_path: Path, config_path: Path | None) -> tuple[list[Case], Splits, Plan, Config | None]:
    """The cases and their splits, as ``malignancy train`` would draw them."""
    if config_path is not None:
        experiment = read_experiment(config_path, [f"data.manifest={manifest_path}"])
        settled = Plan(experiment.folds, experiment.config.training.member_count)
        return labelled_cases(experiment.manifest), experiment.splits, settled, experiment.config
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    cases = labelled_cases(manifest)
    settled = plan_training(cases)
    if settled.folds:
        return cases, assign_folds(manifest, settled.folds, seed=0), settled, None
    return cases, assign_splits(manifest, SplitFractions(), seed=0, joined=settled.members > 1), settled, None


def look_ahead(
    cases: Sequence[Case], splits: Splits, settled: Plan, *, assumed: Assumed, config: Config | None = None
) -> Outlook:
    """Compute the outlook from the numbers of cases and patients.

    Args:
        cases: labelled, with their patients.
        splits: of them.
        settled: folds and members.
        assumed: of the model that will be trained.
        config: of the training; None: none is written yet.
    """
    judging = [case for case in cases if settled.folds or splits.of[case.case_id] == "test"]
    calibrating = _calibrating(cases, splits, settled)
    size = JudgedSize.of(
        [str(case.patient_id) for case in judging], [int(case.label or 0) for case in judging], alike=assumed.alike
    )
    fitted, judged = CaseCount.of(calibrating), CaseCount.of(judging)
    parameters = 1 + (len(config.data.covariates) if config else 0)
    prevalence = fitted.malignant / (fitted.malignant + fitted.benign)
    return Outlook(
        lines=tuple(describe_plan(cases, splits.of, settled)),
        calibrating=fitted,
        judging=judged,
        assumed=assumed,
        size=size,
        intervals=expected_intervals(size, assumed),
        needed={name: patients_needed(size, assumed, name, target) for name, target in TARGETS.items()},
        gaps={share: detectable_gaps(size, assumed, share=share) for share in SUBGROUP_SHARES},
        published=riley_cases(assumed, size.prevalence),
        regression=cases_for_regression(
            parameters, r_squared=r_squared_of(assumed.auroc, prevalence), prevalence=prevalence
        ),
        parameters=parameters,
        conditions=_conditions(fitted, judged, settled),
    )


def _calibrating(cases: Sequence[Case], splits: Splits, settled: Plan) -> list[Case]:
    """Cases that fit the calibrator: a split of their own, or those that networks leave out in turn."""
    if settled.folds:
        return list(cases)
    name = "calibration" if settled.members == 1 else "train"
    return [case for case in cases if splits.of[case.case_id] == name]


def _conditions(calibrating: CaseCount, judging: CaseCount, settled: Plan) -> tuple[Condition, ...]:
    """Numbers of cases that other parts of the project need."""
    least = GatePolicy().patients_a_class
    asks = f"asks for {least} unseen patients of each class"
    have = f"{judging.malignant_patients} with malignant and {judging.benign_patients} with benign cases judge"
    if settled.folds:
        have = "with folds the model is fitted on all of these, so that it takes others"
    unseen = 0 if settled.folds else judging.rarer_patients
    gate = Condition("promotion gate", unseen >= least, f"{asks}; {have}")
    try:
        needed_cases(calibrating.malignant, target=_TARGET, confidence=_CONFIDENCE)
        sure, finding = True, f"{calibrating.malignant} malignant cases calibrate, which is enough"
    except CalibrationError as error:
        sure, finding = False, str(error)
    confidence = Condition(f"operating_point.confidence: {_CONFIDENCE:g}", sure, finding)
    zone = Condition(
        "operating_point.refer_coverage",
        calibrating.rarer >= CASES_A_CLASS,
        f"a refer zone asks for {CASES_A_CLASS} cases of each class; {calibrating.malignant} malignant and "
        f"{calibrating.benign} benign cases calibrate",
    )
    return gate, confidence, zone


def _summary_lines(outlook: Outlook) -> Iterable[str]:
    assumed, judging = outlook.assumed, outlook.judging
    yield from outlook.lines
    yield (
        f"judged: {judging}; taken for an AUROC of {assumed.auroc:g}, a sensitivity of {assumed.sensitivity:g} and a "
        f"correlation of {assumed.alike:g} between a patient's cases, they are worth {outlook.size.cases:.0f} "
        "independent cases"
    )
    table = Table("", "expected", "95 % interval", "±", "aim", "judged patients for it")
    for name, interval in outlook.intervals.items():
        limits = f"{interval.lower:.3f} to {interval.upper:.3f}"
        row = (f"{interval.estimate:.3f}", limits, f"{half_width(interval):.3f}", f"{TARGETS[name]:g}")
        table.add_row(_NAMES[name], *row, f"{outlook.needed[name]:,}")
    yield table_text(table, width=120)
    for share, gaps in outlook.gaps.items():
        detectable = ", ".join(f"{_NAMES[name].split(' at ')[0]} {min(gap, 1.0):.2f}" for name, gap in gaps.items())
        yield f"smallest gap between {100 * share:.0f} % of the patients and the others (80 % power, 5 %): {detectable}"
    published = ", ".join(f"{_NAMES[name]} {cases:,}" for name, cases in outlook.published.items())
    yield f"independent cases by Riley et al. (2021), for an external validation: {published}"
    slopes = "the logit" if outlook.parameters == 1 else f"the logit and {outlook.parameters - 1} covariates"
    yield (
        f"independent cases by Riley et al. (2020), for the regression that calibrates ({slopes}): "
        f"{outlook.regression.cases:,}; {outlook.calibrating.malignant + outlook.calibrating.benign:,} calibrate. No "
        "such rule exists for the network, whose parameters are not a regression's"
    )
    for condition in outlook.conditions:
        yield f"{'yes' if condition.holds else 'no '}  {condition.name}: {condition.finding}"
