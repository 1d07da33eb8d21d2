"""Calibrating a detector's probabilities on the calibration split, and measuring it while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.cases.scan_table import ScanTable, lesion_flag
from pipeline.config.detection import DetectionConfig
from pipeline.evaluation.calibration.calibrator import logit, sigmoid
from pipeline.evaluation.calibration.fallback import CalibrationFit, fit_with_fallback
from pipeline.evaluation.detection.froc import froc
from pipeline.evaluation.detection.matching import match_scans
from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion
from pipeline.models.detector import Detector
from pipeline.models.peaks import find_peaks
from pipeline.models.search_volume import search_volume
from pipeline.training.detection.scans import TrainingScan
from pipeline.training.precision import precision_of
from pipeline.workflow.detection.search_scans import Searches

_MOST_LOGIT = 30.0  # beyond it a sigmoid is 0 or 1 in floating point


def fit_calibrators(searches: Searches, table: ScanTable, classes: Sequence[str]) -> tuple[CalibrationFit, ...]:
    """A calibrator for each class, fitted on the candidates of an uncalibrated detector.

    ``nodule``: hits against false positives. Any other class: whether the candidate hits a lesion of which the table
    says yes, against hits of which it says no and false positives; unknown ones are left out. Duplicates and
    candidates in ignored lesions are left out everywhere, as they are in judging.

    Args:
        searches: of the calibration split, their probabilities bare sigmoids.
        table: that holds the lesions.
        classes: of the detector, ``nodule`` first.
    """
    logits: list[list[float]] = [[] for _ in classes]
    labels: list[list[int]] = [[] for _ in classes]
    for matched, candidates in zip(match_scans(searches.scans).scans, searches.candidates, strict=True):
        rows = {lesion.case_id: lesion for lesion in table.lesions_of[matched.scan.scan_id]}
        hit_of = {match.candidate: rows[match.lesion.lesion_id] for match in matched.lesions}
        for number, candidate in enumerate(candidates):
            outcome = matched.outcomes[number]
            if outcome not in ("hit", "false positive"):
                continue
            for index, name in enumerate(classes):
                flag: bool | None = outcome == "hit"
                if flag and index:
                    flag = lesion_flag(hit_of[number], name)
                if flag is not None:
                    value = float(logit(candidate.probabilities[index]))
                    logits[index].append(float(np.clip(value, -_MOST_LOGIT, _MOST_LOGIT)))
                    labels[index].append(int(flag))
    return tuple(
        fit_with_fallback("platt", np.array(logits[index]), np.array(labels[index], dtype=np.int64))
        for index in range(len(classes))
    )


def validation_judge(
    scans: Sequence[TrainingScan], patients: Sequence[str], config: DetectionConfig
) -> Callable[[Detector], Mapping[str, float]]:
    """The function that measures a detector on the validation scans: CPM, and sensitivity at 2 false positives a scan.

    Args:
        scans: of the validation split.
        patients: of each.
        config: names spacing, peaks and precision.
    """
    spacing, bf16 = config.grid.spacing_mm, precision_of(config.training) == "bf16-mixed"

    def point(voxel: np.ndarray) -> tuple[float, float, float]:
        r, a, s = (float(value) * spacing for value in voxel)
        return r, a, s

    def judge(network: Detector) -> dict[str, float]:
        searched = []
        for scan, patient in zip(scans, patients, strict=True):
            peaks = find_peaks(search_volume(network, scan.voxels, bf16=bf16), config.candidates, spacing_mm=spacing)
            probabilities = sigmoid(peaks.logits[:, 0])
            candidates = tuple(
                ScoredPoint(point(voxel), float(probability), float(diameter))
                for voxel, probability, diameter in zip(peaks.voxels, probabilities, peaks.diameters_mm, strict=True)
            )
            lesions = tuple(
                TrueLesion(point(lesion.voxel), lesion.diameter_mm, lesion.ignore) for lesion in scan.lesions
            )
            searched.append(SearchedScan(scan.scan_id, patient, lesions, candidates))
        curve = froc(searched)
        return {"validation_cpm": curve.cpm, "validation_sensitivity_at_2": float(curve.at([2.0])[0])}

    return judge
