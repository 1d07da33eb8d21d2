"""Summary of a scoring run, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.console import one_line
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.scoring.drift import PROBABILITY, Drift, DriftMeter, DriftReference, references_from_json
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.rows import STATUSES
from pipeline.scoring.sink import measures_of
from pipeline.workflow.judging.table_truth import truth_differences
from pipeline.workflow.reporting.ended_run import EndedRun, earlier_and_later, run_to_json

_SHOWN = 5  # rows printed at the end
_HISTOGRAM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class ScoringRun(EndedRun):
    """A scoring run that has come to its end, with the descriptions of its models."""

    descriptions: Sequence[ModelDescription]


def summarise(run: ScoringRun, tables: Iterable[pa.Table], *, drift_alert: float) -> dict[str, Any]:
    """``summary.json``: counts, throughput, digests, and whether the cases have drifted.

    Args:
        run: that ended.
        tables: committed rows with their measures (`pipeline.scoring.sink.Sink.tables`).
        drift_alert: population stability index, less its value by chance, from which a significant shift is an alert.
    """
    meter = DriftMeter(_references(run.descriptions))
    histogram = np.zeros(_HISTOGRAM_BINS, np.int64)
    first: list[dict[str, Any]] = []
    decisions: Counter[str] = Counter()
    for table in tables:
        probabilities = [value for value in table.column("probability").to_pylist() if value is not None]
        histogram += np.histogram(probabilities, bins=_HISTOGRAM_BINS, range=(0.0, 1.0))[0]
        decisions.update(value for value in table.column("decision").to_pylist() if value is not None)
        columns = {name: table.column(name).to_pylist() for name in table.column_names if name.startswith(PROBABILITY)}
        meter.add(table.column("patient_id").to_pylist(), {**columns, **measures_of(table)})
        if len(first) < _SHOWN:
            names = ["case_id", "status", "code", "probability", "decision"]
            first += table.select(names).slice(0, _SHOWN - len(first)).to_pylist()
    drift = meter.drift(least_effect=drift_alert)
    unscored = run.counts.statuses.get("rejected", 0) + run.counts.statuses.get("failed", 0)
    label = run.descriptions[0].label
    return {
        "cases": run.counts.total,
        **{status: run.counts.statuses.get(status, 0) for status in STATUSES},
        "codes": dict(run.counts.codes),
        "decisions": dict(sorted(decisions.items())),
        "unscored_share": unscored / max(run.counts.total, 1),
        **run_to_json(run),
        "reported_model": ReportedModel.of(run.descriptions, run.identity).model_dump(mode="json"),
        "label_source": label.source,
        "intensities": label.intensities,
        "intensities_differ": truth_differences(
            run.inputs.facts, label_source=label.source, intensities=label.intensities
        ).intensities,
        "probability_histogram": histogram.tolist(),
        **_drift_to_json(drift),
        "drift_unknown_patients": meter.unknown_patients,
        "first_rows": first,
    }


def scoring_summary(run: ScoringRun, summary: Mapping[str, Any], out: Path) -> str:
    """The summary in a few lines of text."""
    counts = ", ".join(f"{summary[status]} {status}" for status in STATUSES)
    lines = [f"{summary['cases']} cases: {counts} ({summary['scans_per_second']} scans per second)"]
    lines += earlier_and_later(run, "cases")
    if summary["decisions"]:
        lines.append("  " + ", ".join(f"{count} {name}" for name, count in summary["decisions"].items()))
    lines += [f"  {code}: {count}" for code, count in summary["codes"].items()]
    lines += [f"  drift: {sentence}" for sentence in summary["drift_sentences"]]
    if summary["drift_alerts"] and summary["drift_unknown_patients"]:
        lines.append(
            f"  drift: {summary['drift_unknown_patients']} cases name no patient, and each counts as another; "
            "where a patient has several, chance does more than the test knows of"
        )
    calibrators = ", ".join(
        dict.fromkeys(
            _calibrator(member.calibrator) for description in run.descriptions for member in description.members
        )
    )
    lines.append(
        f"model {run.identity.model}: probability of malignancy ({summary['label_source']}), "
        f"{calibrators}, {summary['intensities']} intensities"
    )
    if summary["intensities_differ"]:
        lines.append(f"{summary['intensities_differ']}: the probabilities are not made for these cases")
    if len(run.descriptions[0].findings) > 1:
        findings = ", ".join(run.descriptions[0].findings)
        lines.append(f"findings, each with its own probability, which do not sum to 1: {findings}")
    for row in summary["first_rows"]:
        shown = f"{row['probability']:.3f} {row['decision']}" if row["probability"] is not None else row["code"]
        lines.append(f"  {row['case_id']}: {shown} ({row['status']})")
    lines.append(f"rows: {out / 'scores.parquet'}, {out / 'scores.csv'}")
    return "\n".join(map(one_line, lines))


def _references(descriptions: Sequence[ModelDescription]) -> dict[str, DriftReference]:
    """References to compare the cases with; of several models only the first one's measures.

    The first model's probabilities are not compared, because the rows hold the mean of all.
    """
    description = descriptions[0]
    stored = description.drift_reference
    if len(descriptions) > 1:
        stored = {name: reference for name, reference in stored.items() if not name.startswith(PROBABILITY)}
    # For models that were saved before references held their numbers of cases.
    train, calibration = len(description.patients.train), len(description.patients.calibration)
    patients = {name: calibration or train if name.startswith(PROBABILITY) else train for name in stored}
    return references_from_json(stored, patients=patients)


def _drift_to_json(drift: Drift) -> dict[str, Any]:
    """Indices by name, the test of each, and the change in words."""
    return {
        "drift": {name: round(shift.index, 4) for name, shift in drift.shifts.items()},
        "drift_alerts": list(drift.alerts),
        "drift_tests": {
            name: {
                "index": shift.index,
                "effect": shift.effect,
                "statistic": shift.statistic,
                "degrees_of_freedom": list(shift.degrees),
                "p_value": shift.p_value,
                "p_adjusted": drift.adjusted[name],
                "cases": shift.cases,
                "patients": shift.patients,
                "alert": name in drift.alerts,
            }
            for name, shift in drift.shifts.items()
        },
        "drift_untested": dict(drift.untested),
        "drift_sentences": drift.sentences(),
    }


def _calibrator(value: dict[str, Any]) -> str:
    return Calibrator.from_json(value).describe()
