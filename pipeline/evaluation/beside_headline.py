"""Results beside the headline: subgroups, label certainty, patients, refer zone, seeds; or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferResult, ReferZone, fit_refer_zone, judge_refer_zone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.patient_level import by_patient, has_several_cases
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.against_readers import ReadersEvaluation, evaluate_readers
from pipeline.evaluation.readers.agreement import ReaderColumns, usual_reader_columns
from pipeline.evaluation.readers.label_certainty import evaluate_by_certainty
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.seeds import SeedSpread, spread_over_seeds
from pipeline.evaluation.subgroup_gaps import Gap, subgroup_gaps
from pipeline.evaluation.subgroups import Subgroup, evaluate_subgroups
from pipeline.evaluation.usual_columns import HEADLINE_BAND, RATING_SCALE, SUBGROUP_COLUMNS, usual_edges


@dataclass(frozen=True)
class Details:
    """Results beside the headline; those that could not be computed are in ``missing`` with the reason.

    Attributes:
        subgroups: in order of column.
        certainty: by label certainty; empty without readers' ratings.
        patient: of the largest probability of each patient; None where every patient has one case.
        refer: the refer-to-human zone, fitted on the calibration split and judged here beside the threshold.
        seeds: spread over training seeds; empty with one seed.
        missing: reasons, by name.
        gaps: differences between subgroups and the others, those that enough patients are there for.
        readers: agreement of several readers, and the ceiling of their labels; None without their ratings.
    """

    subgroups: tuple[Subgroup, ...] = ()
    certainty: tuple[Subgroup, ...] = ()
    patient: Evaluation | None = None
    refer: ReferResult | None = None
    seeds: tuple[SeedSpread, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    readers: ReadersEvaluation | None = None

    @property
    def headline_band(self) -> Subgroup | None:
        """The subgroup of ``HEADLINE_BAND``, where there is one."""
        return next((group for group in self.subgroups if (group.column, group.value) == HEADLINE_BAND), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "subgroups": [subgroup.to_json() for subgroup in self.subgroups],
            "subgroup_gaps": [gap.to_json() for gap in self.gaps],
            "label_certainty": [subgroup.to_json() for subgroup in self.certainty],
            "readers": None if self.readers is None else self.readers.to_json(),
            "patient_level": None if self.patient is None else self.patient.to_json(),
            "refer_zone": None if self.refer is None else self.refer.to_json(),
            "seeds": [spread.to_json() for spread in self.seeds],
            "missing": dict(self.missing),
        }


def evaluate_details(
    judged: Predictions,
    *,
    operating_point: OperatingPoint,
    columns: Sequence[str] = (),
    calibration: Predictions | None = None,
    refer_zone: ReferZone | None = None,
    all_seeds: Predictions | None = None,
    readers: ReaderColumns | None = None,
    resamples: int = 1000,
) -> Details:
    """Compute every result that the predictions allow.

    Args:
        judged: one row a case, with probabilities; unlabelled rows count by label certainty alone.
        operating_point: chosen on the calibration split.
        columns: subgroup columns beside the usual ones.
        calibration: calibration split's predictions, for the refer zone; None when they are missing.
        refer_zone: the model's own; None fits one of 90 % coverage on ``calibration``.
        all_seeds: the judged cases under every seed; None when there is one.
        readers: columns of several readers' ratings; None takes the usual ones, where there are any.
        resamples: patient-level bootstrap samples.
    """
    settings: dict[str, Any] = {"operating_point": operating_point, "resamples": resamples}
    extra = judged.extra
    names = list(dict.fromkeys([*columns, *(name for name in SUBGROUP_COLUMNS if name in extra.columns)]))
    bands = {name: edges for name in names if name in extra and (edges := usual_edges(extra[name])) is not None}
    rated_by = readers or ReaderColumns(usual_reader_columns([*map(str, extra.columns)]))
    results: dict[str, Callable[[], Any]] = {}
    if RATING_SCALE.column in extra.columns:
        results["label certainty"] = lambda: evaluate_by_certainty(judged, scale=RATING_SCALE, **settings)
    if rated_by.names:
        results["readers"] = lambda: evaluate_readers(judged, rated_by, resamples=resamples)
    if has_several_cases(judged):
        results["patient level"] = lambda: evaluate(by_patient(judged), **settings)
    results["refer zone"] = lambda: _refer(judged, operating_point, calibration, refer_zone)
    if all_seeds is not None:
        results["spread over seeds"] = lambda: spread_over_seeds(all_seeds)
    computed, missing = _attempt(results)
    return Details(
        subgroups=evaluate_subgroups(judged, names, bands=bands, **settings),
        certainty=computed.get("label certainty", ()),
        patient=computed.get("patient level"),
        refer=computed.get("refer zone"),
        seeds=computed.get("spread over seeds", ()),
        missing=missing,
        gaps=subgroup_gaps(judged, names, operating_point=operating_point, bands=bands),
        readers=computed.get("readers"),
    )


def _attempt(results: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Each result under its name, and the reasons why others could not be computed."""
    computed, missing = {}, {}
    for name, compute in results.items():
        try:
            computed[name] = compute()
        except (UndefinedMetricError, CalibrationError, UsageError) as error:
            missing[name] = str(error)
    return computed, missing


def _refer(
    judged: Predictions, point: OperatingPoint, calibration: Predictions | None, zone: ReferZone | None
) -> ReferResult:
    if zone is None:
        if calibration is None or not len(calibration.labelled()):
            raise CalibrationError("refer zone: there are no labelled calibration cases to fit it on")
        fitted_on = calibration.labelled()
        zone = fit_refer_zone(fitted_on.labels, fitted_on.probabilities)
    return judge_refer_zone(zone, judged, threshold=point.threshold)
