"""Result objects of a scored series: one structured report, and one picture of each lesion that was scored.

    series = SourceSeries.read(case.files or case.path, modality="CT", part=case.part)
    model = ReportedModel.of(descriptions, identity)
    objects = result_objects([CaseResult.of(row, case, model.findings)], series, model)
    write_results(objects, folder)

The SOP Instance UIDs follow from the model's digest, the series with its images, and the cases, so that a result made
again is the same object. Patient and study attributes are copied from the series into the objects and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from pipeline.dicomnet.objects.capture import lesion_captures
from pipeline.dicomnet.objects.case_result import CaseResult
from pipeline.dicomnet.objects.patient_context import time_zone
from pipeline.dicomnet.objects.report import structured_report
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.dicomnet.objects.source_series import SourceSeries
from pipeline.errors import CaseError, Code
from pipeline.files import atomic_write, private_folder
from pipeline.imaging.dicom.file import quiet


@dataclass(frozen=True, eq=False)
class ResultObjects:
    """Objects for the archive of one series.

    Attributes:
        report: a Comprehensive 3D SR.
        captures: Secondary Captures, one for each lesion that was scored.
    """

    report: Dataset
    captures: tuple[Dataset, ...]

    @property
    def all(self) -> tuple[Dataset, ...]:
        """Every object; the report last, so that what is sent in this order is complete when the report is there."""
        return (*self.captures, self.report)


def result_objects(
    results: Sequence[CaseResult],
    series: SourceSeries,
    model: ReportedModel,
    *,
    replaces: Sequence[Dataset] = (),
) -> ResultObjects:
    """Make the objects.

    Args:
        results: of all cases of the series, at least one; scored or not.
        series: that was scored.
        model: that scored it.
        replaces: earlier reports of the same series (of fewer slices), which the new one names as its predecessors.

    Raises:
        CaseError: E_SLICE_UNREADABLE when the images are not those that were scored.
    """
    _require_scored_images(results, series)
    captures = lesion_captures(results, series, model)
    report = structured_report(results, series, model, missing_pictures=captures.missing, replaces=replaces)
    made_at = max(datetime.fromisoformat(result.scored_at) for result in results)
    with quiet():  # pydicom's warnings quote values that break a rule
        for data in (*captures.images, report):
            _settle(data, series, made_at)
    return ResultObjects(report, captures.images)


def write_results(objects: ResultObjects, folder: Path) -> tuple[Path, ...]:
    """Write each object as ``<SOP Instance UID>.dcm``, whole or not at all, the report last.

    Args:
        objects: of one series.
        folder: made when missing, for its owner alone.

    Returns:
        The files, in the order in which they were written.
    """
    private_folder(folder)
    paths = []
    for data in objects.all:
        path = folder / f"{data.SOPInstanceUID}.dcm"
        with atomic_write(path) as temporary, quiet():
            data.save_as(temporary, enforce_file_format=True)
        paths.append(path)
    return tuple(paths)


def _require_scored_images(results: Sequence[CaseResult], series: SourceSeries) -> None:
    digests = {result.image_sha256 for result in results if result.is_scored} - {None}
    if digests and (series.scan is None or digests != {series.scan.digest}):
        reason = "its images are not those that were scored; score it again"
        raise CaseError(Code.E_SLICE_UNREADABLE, series.path, reason)


def _settle(data: Dataset, series: SourceSeries, made_at: datetime) -> None:
    """Patient and study as the series has them, and the time of the scoring for every time of making."""
    for element in series.context:
        data[element.tag] = element
    data.StudyInstanceUID = series.study
    local = made_at.astimezone(time_zone(series.context))
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    data.InstanceCreationDate, data.InstanceCreationTime = date, time
    data.ContentDate, data.ContentTime = date, time
    if "DateOfSecondaryCapture" in data:
        data.DateOfSecondaryCapture, data.TimeOfSecondaryCapture = date, time
    for item in data.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
