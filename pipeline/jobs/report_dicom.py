"""``malignancy report-dicom``: the rows of a scoring run as DICOM objects, a report and pictures for each series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs, one_scan_a_case, read_inputs
from pipeline.config.detection import LEAST_REPORTED
from pipeline.dicomnet.objects.case_result import CaseResult
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.errors import CaseError, Code, UsageError
from pipeline.extras import require_extra
from pipeline.files import read_json
from pipeline.imaging.checks import within_root
from pipeline.progress import ProgressReport

_CANDIDATES = "candidates.parquet"  # of what a detector found
_SHOWN = 5  # series without objects that are named


@dataclass
class DicomReporting:
    """Result of writing the rows as DICOM objects.

    Attributes:
        folder: that the objects are in.
        reports: written, one a series.
        captures: pictures written.
        refused: series that no object can be made of, and why.
        rows_without_case: rows whose case the input does not name.
        cases_without_row: cases of the input that were not scored.
    """

    folder: Path
    reports: int = 0
    captures: int = 0
    refused: list[CaseError] = field(default_factory=list)
    rows_without_case: int = 0
    cases_without_row: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every row is in a report."""
        return not (self.refused or self.rows_without_case)

    @property
    def summary(self) -> str:
        """Text that the command prints: what was written, and what was not."""
        lines = [f"{self.reports} reports and {self.captures} pictures of lesions: {self.folder}"]
        if self.refused:
            lines.append(f"  {len(self.refused)} series have no report:")
            lines += [f"    {error}" for error in self.refused[:_SHOWN]]
            lines += ["    ..."] * (len(self.refused) > _SHOWN)
        if self.rows_without_case:
            lines.append(f"  {self.rows_without_case} rows are of cases that the input does not name, and in no report")
        if self.cases_without_row:
            lines.append(f"  {self.cases_without_row} cases of the input have no row, and are in no report")
        return "\n".join(lines)


def require_dicom_results() -> None:
    """Check that the packages are installed.

    Raises:
        UsageError: naming the package.
    """
    require_extra("dicom", "writing DICOM results", "highdicom")


def report_dicom(scores: Path, source: str, out: Path, *, lesions: tuple[Path, ...] = ()) -> DicomReporting:
    """Write the result objects of every DICOM series that was scored.

    Args:
        scores: output folder of `malignancy score`, with or without a detector.
        source: the input that was scored: manifest, folder or scan.
        out: folder of the objects; made when missing.
        lesions: annotation files or folders that lesion centres were taken from.

    Raises:
        UsageError: when a package is missing, or ``scores`` is no folder of a scoring run.
    """
    require_dicom_results()
    model = _read_model(scores)
    rows = _read_rows(scores, model)
    inputs = read_inputs(source)
    if (scores / _CANDIDATES).exists():
        if lesions:
            raise UsageError(f"--lesions: the rows in {scores} are of lesions that a detector found; leave it out")
        return _report_found(scores, inputs, model, out)
    if lesions:
        from pipeline.cases.lesions.locate import locate, located_inputs

        inputs = located_inputs(inputs, locate(inputs, lesions))
    result = DicomReporting(out)
    series = _by_series(inputs, rows, result)
    result.rows_without_case = len(rows)
    return _report(series, model, inputs.root, result)


def _report_found(scores: Path, inputs: Inputs, model: ReportedModel, out: Path) -> DicomReporting:
    """The objects of the series that a detector searched: candidates, or why a series has none."""
    from pipeline.dicomnet.objects.found_cases import FoundScans

    try:
        found = FoundScans.read(scores)
    except (FileNotFoundError, ArrowException, KeyError):
        raise UsageError(f"{scores}: lacks a table of what was found; run the same `malignancy score` again") from None
    inputs, result = one_scan_a_case(inputs), DicomReporting(out)
    series: dict[_Place, _ScoredCases] = defaultdict(list)
    without_case = set(found.scans)
    for scan in inputs.cases():
        if scan.case_id in found.scans:
            series[(scan.files, *scan.place)] += found.cases_of(scan, least_probability=LEAST_REPORTED)
            without_case.discard(scan.case_id)
        else:
            result.cases_without_row += 1
    result.rows_without_case = len(without_case)
    return _report(series, model, inputs.root, result)


def _report(
    series: Mapping[_Place, _ScoredCases], model: ReportedModel, root: Path | None, result: DicomReporting
) -> DicomReporting:
    with ProgressReport("series reported", total=len(series)) as progress:
        for cases in series.values():
            try:
                _report_series(cases, model, root, result)
            except CaseError as error:
                result.refused.append(error)
            progress.advance(f"{len(result.refused)} without a report")
    return result


def _read_model(scores: Path) -> ReportedModel:
    path = scores / "summary.json"
    if (scores / _CANDIDATES).exists() and not (scores / "scores.parquet").exists():
        raise UsageError(
            f"{scores}: holds what a detector found, without scores; search with `malignancy score MODEL INPUT --find "
            "DETECTOR`, or score its candidates.csv and give that --out folder and candidates.csv"
        )
    try:
        return ReportedModel.from_json(read_json(path)["reported_model"])
    except FileNotFoundError:
        raise UsageError(f"{scores}: holds no summary.json; give the --out folder of `malignancy score`") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: says nothing of the model; run the same `malignancy score` again") from None


def _read_rows(scores: Path, model: ReportedModel) -> dict[str, dict[str, Any]]:
    path = scores / "scores.parquet"
    try:
        rows = {row["case_id"]: row for row in pq.read_table(path, partitioning=None).to_pylist()}
        for row in rows.values():
            CaseResult.of(row, _NOWHERE, model.findings)
            if row["model_digest"] != model.digest:
                raise UsageError(f"{path}: holds rows of another model than summary.json; score again into one folder")
    except FileNotFoundError:
        raise UsageError(f"{path}: is missing; give the --out folder of `malignancy score`") from None
    except (ArrowException, KeyError):
        raise UsageError(f"{path}: is not a table of scores; restore it, or score again") from None
    return rows


_NOWHERE = Case(case_id="", image="", path=Path())
_Place = tuple[object, ...]
_ScoredCases = list[tuple[Case, Mapping[str, Any]]]


def _by_series(inputs: Inputs, rows: dict[str, dict[str, Any]], result: DicomReporting) -> dict[_Place, _ScoredCases]:
    """Cases with their rows, by the series that they lie in; takes the rows that have a case out of ``rows``."""
    series: dict[_Place, _ScoredCases] = defaultdict(list)
    for case in inputs.cases():
        row = rows.pop(case.case_id, None)
        if row is None:
            result.cases_without_row += 1
        else:
            series[(case.files, *case.place)].append((case, row))
    return series


def _report_series(cases: _ScoredCases, model: ReportedModel, root: Path | None, result: DicomReporting) -> None:
    from pipeline.dicomnet.objects.result_objects import result_objects, write_results
    from pipeline.dicomnet.objects.source_series import SourceSeries

    case = cases[0][0]
    if case.url is not None:
        raise CaseError(Code.E_NOT_FOUND, case.image, "lies on another machine; copy the series here to report on it")
    path = case.path if root is None else within_root(case.path, root)
    series = SourceSeries.read(case.files or path, limits=model.limits, modality=model.modality, part=case.part)
    results = [CaseResult.of(row, case, model.findings) for case, row in cases]
    objects = result_objects(results, series, model)
    write_results(objects, result.folder)
    result.reports += 1
    result.captures += len(objects.captures)
