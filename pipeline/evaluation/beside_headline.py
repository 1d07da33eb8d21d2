"""What stands beside the headline: subgroups, label certainty, patients, the refer zone, seeds. Each or its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferResult, ReferZone, fit_refer_zone, judge_refer_zone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.patient_level import by_patient, has_several_cases
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.against_readers import ReadersEvaluation, evaluate_readers
from pipeline.evaluation.readers.agreement import ReaderColumns, usual_reader_columns
from pipeline.evaluation.readers.label_certainty import RATING_COLUMN, evaluate_by_certainty
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.seeds import SeedSpread, spread_over_seeds
from pipeline.evaluation.subgroup_gaps import Gap, subgroup_gaps
from pipeline.evaluation.subgroups import SUBGROUP_COLUMNS, Subgroup, evaluate_subgroups, usual_edges

HEADLINE_BAND = ("diameter_mm", "6 to 15")  # where malignancy is in doubt, and the diameter alone says least
_T = TypeVar("_T")


@dataclass(frozen=True)
class Details:
    """Beside the headline; what could not be computed is in ``missing`` with its reason.

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
        """Lesions of 6 to below 15 mm, where diameters are known."""
        return next((each for each in self.subgroups if (each.column, each.value) == HEADLINE_BAND), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "subgroups": [each.to_json() for each in self.subgroups],
            "subgroup_gaps": [each.to_json() for each in self.gaps],
            "label_certainty": [each.to_json() for each in self.certainty],
            "readers": None if self.readers is None else self.readers.to_json(),
            "patient_level": None if self.patient is None else self.patient.to_json(),
            "refer_zone": None if self.refer is None else self.refer.to_json(),
            "seeds": [each.to_json() for each in self.seeds],
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
    seed: int = 0,
) -> Details:
    """Compute what the predictions allow.

    Args:
        judged: one row a case, with probabilities; unlabelled rows count by label certainty alone.
        operating_point: chosen on the calibration split.
        columns: subgroup columns beside the usual ones.
        calibration: calibration split's predictions, for the refer zone; None when they are not at hand.
        refer_zone: the model's own; None fits one of 90 % coverage on ``calibration``.
        all_seeds: the judged cases under every seed; None when there is one.
        readers: columns of several readers' ratings; None takes the usual ones, where there are any.
        resamples: patient-level bootstrap samples.
        seed: of the bootstraps.
    """
    missing: dict[str, str] = {}

    def attempt(name: str, compute: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return compute()
        except (UndefinedMetricError, CalibrationError, UsageError) as error:
            missing[name] = str(error)
            return otherwise

    have = judged.extra
    names = list(dict.fromkeys([*columns, *(name for name in SUBGROUP_COLUMNS if name in have.columns)]))
    bands = {name: edges for name in names if name in have and (edges := usual_edges(have[name])) is not None}
    subgroups = evaluate_subgroups(
        judged, names, operating_point=operating_point, bands=bands, resamples=resamples, seed=seed
    )
    gaps = subgroup_gaps(judged, names, operating_point=operating_point, bands=bands)
    certainty: tuple[Subgroup, ...] = ()
    if RATING_COLUMN in have.columns:
        certainty = attempt(
            "label certainty",
            lambda: evaluate_by_certainty(judged, operating_point=operating_point, resamples=resamples, seed=seed),
            (),
        )
    columns_of_readers = readers or ReaderColumns(usual_reader_columns([*map(str, have.columns)]))
    of_readers: ReadersEvaluation | None = None
    if columns_of_readers.names:
        of_readers = attempt(
            "readers", lambda: evaluate_readers(judged, columns_of_readers, resamples=resamples, seed=seed), None
        )
    patient: Evaluation | None = None
    if has_several_cases(judged):
        patient = attempt(
            "patient level",
            lambda: evaluate(by_patient(judged), operating_point=operating_point, resamples=resamples, seed=seed),
            None,
        )
    refer = attempt("refer zone", lambda: _refer(judged, operating_point, calibration, refer_zone), None)
    seeds: tuple[SeedSpread, ...] = ()
    if all_seeds is not None:
        seeds = attempt("spread over seeds", lambda: spread_over_seeds(all_seeds), ())
    return Details(subgroups, certainty, patient, refer, seeds, missing, gaps, of_readers)


def _refer(
    judged: Predictions, point: OperatingPoint, calibration: Predictions | None, zone: ReferZone | None
) -> ReferResult:
    if zone is None:
        if calibration is None or not len(calibration.labelled()):
            raise CalibrationError("refer zone: there are no labelled calibration cases to fit it on")
        fitted_on = calibration.labelled()
        zone = fit_refer_zone(fitted_on.labels, fitted_on.probabilities)
    return judge_refer_zone(zone, judged, threshold=point.threshold)
