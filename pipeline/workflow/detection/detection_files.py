"""Write the files of a detector's evaluation: report, figures, numbers, and every candidate with its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipeline.evaluation.detection.evaluate_detection import DIAMETER_EDGES_MM
from pipeline.evaluation.report.detection_figures import detection_figures
from pipeline.evaluation.report.detection_page import DetectionReport, render_detection_report
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.page import ReportPicture
from pipeline.files import atomic_write, write_csv, write_json, write_text
from pipeline.scoring.finding.detector_description import DetectorDescription
from pipeline.workflow.detection.judge_detector import JudgedScans

_RESEARCH = "research use; not a medical device"
_SIMULATED = "simulated intensities"


@dataclass(frozen=True, kw_only=True)
class DetectionSources:
    """Sources of a detector's report.

    Attributes:
        title: headline of the page.
        description: of the detector.
        calibration: of the class ``nodule``, in a few words.
        judged: results on the scans.
        judged_on: which scans these are.
        flow: scans by what became of them, in order.
        classifier: name and short digest; blank without one.
        differences: how the scans differ in kind from the detector's.
        pictures: best and worst candidates; images of patients, so only where they are asked for.
    """

    title: str
    description: DetectorDescription
    calibration: str
    judged: JudgedScans
    judged_on: str
    flow: Mapping[str, int]
    classifier: str = ""
    differences: Sequence[str] = ()
    pictures: tuple[ReportPicture, ...] = ()


def write_detection(sources: DetectionSources, folder: Path) -> None:
    """Write ``report.html``, ``evaluation.json``, ``candidates.parquet`` and ``.csv``, ``scans.csv`` and ``figures``.

    Args:
        sources: to write.
        folder: exists.
    """
    figures = _figures(sources)
    (folder / "figures").mkdir(exist_ok=True)
    for name, png in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)
    write_json(folder / "evaluation.json", detection_json(sources))
    _write_candidates(sources, folder)
    _write_scans(sources.judged, folder / "scans.csv")
    write_text(folder / "report.html", render_detection_report(_report(sources, figures)))


def detection_json(sources: DetectionSources) -> dict[str, Any]:
    """``evaluation.json``."""
    judged = sources.judged
    return {
        "detector": sources.description.label,
        "detector_digest": sources.description.digests.model,
        "judged_on": sources.judged_on,
        "flow": dict(sources.flow),
        **judged.evaluation.to_json(),
        "classifier": sources.classifier or None,
        "second_stage": None if judged.second_stage is None else judged.second_stage.to_json(),
        "scan_probability": None if judged.scan_probability is None else judged.scan_probability.to_json(),
        "no_scan_probability": judged.no_scan_probability if judged.scan_probability is None else None,
        "scans": None if judged.scans is None else judged.scans.to_json(),
        "differences": list(sources.differences),
    }


def detection_text(sources: DetectionSources) -> list[str]:
    """Lines of a judgement that the command prints."""
    judged, evaluation = sources.judged, sources.judged.evaluation
    simulated = f" ({_SIMULATED})" if sources.description.lesions.intensities == "simulated" else ""
    lines = [f"{sources.title}{simulated}: {sources.judged_on}, {evaluation.counts}; 95 % intervals by patient"]
    for name, title in _PRINTED.items():
        lines.append(f"  {title}: {evaluation.intervals.get(name) or 'undefined'}")
    if evaluation.candidates is not None:
        lines.append(f"  calibration of candidates: {evaluation.candidates.calibration}")
    stage = judged.second_stage
    if stage is not None:
        for name, title in _STAGE_PRINTED.items():
            lines.append(f"  {title}: {stage.intervals.get(name) or stage.undefined[name]}")
    lines.append(f"  probability of a scan: {judged.scan_probability_text}")
    if judged.scans is not None:
        area = judged.scans.intervals.get("auroc") or judged.scans.undefined["auroc"]
        lines.append(f"  AUROC of {judged.scans.n} labelled scans: {area}")
    return lines


_PRINTED: Mapping[str, str] = {
    "cpm": "CPM (mean sensitivity at 1/8 to 8 false positives a scan)",
    "sensitivity_at_1": "sensitivity at 1 false positive a scan",
    "sensitivity_at_2": "sensitivity at 2 false positives a scan",
    "localisation_median_mm": "distance of hits from the centre, median, mm",
}
_STAGE_PRINTED: Mapping[str, str] = {
    "auroc_found": "classifier's AUROC at the centres that were found",
    "auroc_true": "classifier's AUROC at the true centres",
    "auroc_difference": "found less true, paired",
}


def _figures(sources: DetectionSources) -> dict[str, bytes]:
    evaluation = sources.judged.evaluation
    cases = f"{sources.judged_on}, {evaluation.n_scans} scans of {evaluation.n_patients} patients"
    if sources.description.lesions.intensities == "simulated":
        cases += f", {_SIMULATED}"
    figures = detection_figures(
        sources.judged.matches,
        evaluation,
        caption=Caption(sources.description.label, sources.calibration, cases),
        edges_mm=DIAMETER_EDGES_MM,
        scans=sources.judged.labelled,
    )
    return {name: to_png(figure) for name, figure in figures.items()}


def _report(sources: DetectionSources, figures: Mapping[str, bytes]) -> DetectionReport:
    description, judged = sources.description, sources.judged
    simulated = [_SIMULATED] if description.lesions.intensities == "simulated" else []
    return DetectionReport(
        title=sources.title,
        detector=description.label,
        calibration=sources.calibration,
        evaluation=judged.evaluation,
        judged_on=sources.judged_on,
        badges=(_RESEARCH, *simulated, *sources.differences),
        flow=sources.flow,
        second_stage=judged.second_stage,
        classifier=sources.classifier,
        scans=judged.scans,
        scan_probability=judged.scan_probability_text,
        figures=figures,
        pictures=sources.pictures,
        data={
            "Lesions": f"{description.lesions.positive}; {description.lesions.source}",
            "Intensities": description.lesions.intensities,
            "Modality": description.modality,
            "Input": description.input_contract,
        },
        provenance={
            "Detector digest": description.digests.model,
            **{
                name.replace("_", " ").capitalize(): str(value)
                for name, value in description.provenance.items()
                if isinstance(value, str | int | float)
            },
        },
    )


def _write_candidates(sources: DetectionSources, folder: Path) -> None:
    columns = _candidate_columns(sources.judged, sources.description.classes)
    with atomic_write(folder / "candidates.parquet") as path:
        pyarrow.parquet.write_table(pa.table(columns), path)
    rows = list(zip(*columns.values(), strict=True))
    write_csv(folder / "candidates.csv", list(columns), rows, exact=("case_id", "image", "patient_id"))


def _candidate_columns(judged: JudgedScans, classes: Sequence[str]) -> dict[str, list[Any]]:
    """One row a candidate: the columns of ``malignancy find``, its outcome, and the lesion that it hits."""
    names = ["case_id", "image", "patient_id", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system"]
    names += ["diameter_mm", *(f"probability_{name}" for name in classes), "outcome", "lesion"]
    malignant = None if judged.classified is None else judged.classified.malignant
    names += [] if malignant is None else ["probability_malignant"]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    searches = zip(judged.searches.cases, judged.searches.candidates, judged.matches.scans, strict=True)
    for place, (case, candidates, matched) in enumerate(searches):
        lesion_of = {match.candidate: match.lesion.lesion_id for match in matched.lesions}
        for number, candidate in enumerate(candidates):
            row = [f"{case.case_id}#{number + 1}", case.image, case.patient_id, *candidate.center_mm, "RAS"]
            row += [candidate.diameter_mm, *candidate.probabilities, matched.outcomes[number], lesion_of.get(number)]
            row += [] if malignant is None else [malignant[place][number]]
            for name, value in zip(names, row, strict=True):
                columns[name].append(value)
    return columns


def _write_scans(judged: JudgedScans, path: Path) -> None:
    """One row a scan: its lesions, candidates and probability; rejected ones with their code."""
    header = ("scan_id", "image", "patient_id", "label", "lesions", "hits", "false_positives", "probability", "code")
    rows: list[Sequence[object]] = []
    for case, scan in zip(judged.searches.cases, judged.matches.scans, strict=True):
        hits = sum(match.candidate is not None for match in scan.lesions)
        probability = None if judged.by_scan is None else judged.by_scan.get(case.case_id)
        counts = (len(scan.lesions), hits, scan.outcomes.count("false positive"))
        rows.append((case.case_id, case.image, case.patient_id, case.label, *counts, probability, ""))
    rows += [
        (case.case_id, case.image, case.patient_id, case.label, None, None, None, None, str(error.code))
        for case, error in judged.searches.rejected
    ]
    write_csv(path, header, rows, exact=("scan_id", "image", "patient_id"))
