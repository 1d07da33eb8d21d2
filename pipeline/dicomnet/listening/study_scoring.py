"""Score quiet studies, and keep the results."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.listener_folder import ListenerFolder, ResultName, SeriesKey
from pipeline.dicomnet.listening.outbox import NewResult, Outbox, ResultRecord
from pipeline.dicomnet.listening.series_store import SeriesStore, StudyFiles
from pipeline.dicomnet.listening.study_cases import LesionDetector, SeriesCases, cases_of_study
from pipeline.dicomnet.objects.case_result import CaseResult
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.dicomnet.objects.result_objects import ResultObjects, result_objects
from pipeline.dicomnet.objects.source_series import SourceSeries
from pipeline.errors import CaseError, Code, UnfinishedError
from pipeline.scoring.engines.local import WorkerPool
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.rows import ScoreRow, rows_table


@dataclass(frozen=True, kw_only=True)
class ScoringChoices:
    """How studies are scored.

    Attributes:
        models: that score together.
        reported: the same in the words of their results.
        find: detects lesions in series that no annotation marks.
        report_unmarked: whether a series without lesions gets a report of that, or waits for an annotation.
        captures: whether pictures of the lesions are sent.
        batch_size: cases that go through the network together.
    """

    models: Ensemble
    reported: ReportedModel
    find: LesionDetector | None = None
    report_unmarked: bool = True
    captures: bool = True
    batch_size: int = 8


class StudyScoring:
    """Makes the results of studies.

    Args:
        folder: of the listener.
        store: of its accepted objects.
        pool: of scoring workers.
        choices: how.
        audit: of the listener.
    """

    def __init__(
        self,
        folder: ListenerFolder,
        store: SeriesStore,
        pool: WorkerPool[ScoreRow],
        choices: ScoringChoices,
        audit: Audit,
    ) -> None:
        self._folder, self._store, self._pool, self._choices, self._audit = folder, store, pool, choices, audit
        self._outbox = Outbox(folder)
        self._latest = self._outbox.latest()

    def score(self, files: StudyFiles) -> bool:
        """Make the missing results of a study, and record that it has them all.

        A study that changes meanwhile is scored again later.

        Returns:
            False when the disk has no room for a result, so that the study is to be scored again when it has.

        Raises:
            UnfinishedError: when nothing can be scored.
        """
        try:
            series_cases = self._cases(files)
        except Exception as error:  # noqa: BLE001  # an internal fault must not end the listener
            problem = f"{Code.E_INTERNAL}: {type(error).__name__} inside the program"
            if not self._commit(NewResult(SeriesKey(files.study, min(files.series)), "", 0, problem=problem)):
                return False
            self._store.mark_evaluated(files)
            return True
        todo = [series for series in series_cases if self._is_new(SeriesKey(files.study, series.series), series)]
        if todo:
            self._audit("study complete", study=files.study, series=len(files.series), to_score=len(todo))
        todo = self._searched(todo)
        rows = self._rows(todo)
        for series in todo:
            mine = [row for row in rows if row.image == series.series]
            if not self._store.unchanged(files):
                self._audit("study changed while it was scored", study=files.study)
                return True
            if not self._keep(SeriesKey(files.study, series.series), series, mine):
                return False
        self._store.mark_evaluated(files)
        return True

    def _cases(self, files: StudyFiles) -> list[SeriesCases]:
        description = self._choices.models.descriptions[0]
        return cases_of_study(
            self._folder.received,
            {name: self._store.paths(files, name) for name in files.series},
            modality=description.modality,
            region=description.preprocessing.region,
            detector="" if self._choices.find is None else self._choices.find.digest,
        )

    def _is_new(self, key: SeriesKey, series: SeriesCases) -> bool:
        if series.is_unmarked and not self._choices.report_unmarked:
            self._audit("series waits for an annotation", series=str(key))
            return False
        if key not in self._latest:
            return True
        _, last = self._latest[key]
        if len(series.files) < last.images:  # objects are removed by retention alone
            self._audit("series waits for objects that were removed", series=str(key), images=len(series.files))
            return False
        return last.inputs != series.digest

    def _searched(self, todo: Sequence[SeriesCases]) -> list[SeriesCases]:
        """The series, with the detector's lesions in those without a marked one."""
        unmarked = [series for series in todo if series.detector]
        if self._choices.find is None or not unmarked:
            return list(todo)
        searched = self._choices.find.search([series.cases[0] for series in unmarked])
        cases = {series.series: tuple(lesions) for series, lesions in zip(unmarked, searched, strict=True)}
        return [replace(series, cases=cases.get(series.series, series.cases)) for series in todo]

    def _rows(self, todo: Sequence[SeriesCases]) -> list[ScoreRow]:
        cases = [case for series in todo for case in series.cases]
        return list(self._pool.score(cases, self._choices.batch_size)) if cases else []

    def _keep(self, key: SeriesKey, series: SeriesCases, rows: Sequence[ScoreRow]) -> bool:
        """Put a series' result into the outbox; False when the disk is full."""
        objects, problem = None, ""
        try:
            objects = self._objects(key, series, rows)
        except CaseError as error:
            problem = f"{error.code}: {error.reason}"
        except Exception as error:  # noqa: BLE001  # an internal fault costs this result only
            problem = f"{Code.E_INTERNAL}: {type(error).__name__} inside the program"
        result = NewResult(
            series=key,
            inputs=series.digest,
            images=len(series.files),
            statuses=[row.status for row in rows],
            codes=[row.code for row in rows],
            objects=objects,
            problem=problem,
        )
        return self._commit(result)

    def _commit(self, result: NewResult) -> bool:
        """Store a result under the next number of its series; False when the disk is full."""
        key = result.series
        number, _ = self._latest.get(key, (0, None))
        try:
            name = self._outbox.commit(result, number=number + 1)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise UnfinishedError(f"{self._folder.root}: {error.strerror}; check the disk") from error
            self._audit("disk full", series=str(key))
            return False
        self._latest[key] = (name.number, ResultRecord.read(self._outbox.find(name)))
        self._audit(
            "no result could be made" if result.objects is None else "series scored",
            series=str(key),
            result=str(name),
            images=result.images,
            statuses=",".join(result.statuses) or None,
            codes=",".join(code for code in result.codes if code) or None,
            replaces=str(ResultName(key, number)) if number else None,
            problem=result.problem or None,
        )
        return True

    def _objects(self, key: SeriesKey, series: SeriesCases, rows: Sequence[ScoreRow]) -> ResultObjects:
        models, reported = self._choices.models, self._choices.reported
        table = rows_table(rows, members=models.member_columns, findings=models.finding_columns).to_pylist()
        results = [CaseResult.of(row, case, reported.findings) for row, case in zip(table, series.cases, strict=True)]
        source = SourceSeries.read(
            series.files, limits=models.descriptions[0].preprocessing.limits, modality=reported.modality
        )
        number, _ = self._latest.get(key, (0, None))
        replaces = self._outbox.earlier_report(ResultName(key, number)) if number else []
        objects = result_objects(results, source, reported, replaces=replaces)
        return objects if self._choices.captures else ResultObjects(objects.report, ())
