"""What becomes of a study's series: results, their replacement, and reasons for none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_network import CENTER_LPS, write_mark, write_study
from dicom_writing import ct_slice, save
from pydicom import dcmread
from tiny_models import write_model

from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.outbox import ResultRecord
from pipeline.dicomnet.listening.reception import read_object_identity, store_object
from pipeline.dicomnet.listening.series_store import SeriesStore
from pipeline.dicomnet.listening.study_scoring import ScoringChoices, StudyScoring
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny"))


class Pool:
    """Scores in this process, and counts."""

    def __init__(self, model):
        self.scorer, self.cases, self.meanwhile = Scorer(model), 0, lambda: None

    def score(self, cases, batch_size):
        self.cases += len(cases)
        yield from score_cases(self.scorer, cases, batch_size=batch_size, workers=1)
        self.meanwhile()


class Bench:
    """A listener's folder and its scoring, without its processes."""

    def __init__(self, root: Path, model, **choices):
        self.folder, self.pool = ListenerFolder(root / "listen"), Pool(model)
        self.folder.make()
        self.models = Ensemble.of([model.description])
        self.reported = ReportedModel.of(self.models.descriptions, self.models.identity("eager"))
        self.choices = choices
        self.restart()

    def restart(self):
        self.store = SeriesStore(self.folder, 0.0)
        choices = ScoringChoices(models=self.models, reported=self.reported, **self.choices)
        self.audit = Audit(self.folder.audit, "test")
        self.scoring = StudyScoring(self.folder, self.store, self.pool, choices, self.audit)

    def receive(self, *paths: Path):
        for path in paths:
            for file in sorted(path.rglob("*.dcm")) if path.is_dir() else [path]:
                copy = self.folder.receiving / file.name
                shutil.copyfile(file, copy)
                store_object(self.folder, copy, read_object_identity(copy))

    def turn(self) -> bool:
        outcomes = [self.scoring.score(files) for files in self.store.due()]
        return all(outcomes)

    def results(self, place: str = "outbox") -> list[ResultRecord]:
        names = sorted(path for path in (self.folder.root / place).iterdir() if not path.name.startswith("."))
        return [ResultRecord.read(path) for path in names]

    def report(self, number: int):
        (folder,) = self.folder.outbox.glob(f"*-{number:04d}")
        return dcmread(folder / ResultRecord.read(folder).files[-1])

    def events(self) -> list[str]:
        lines = [line for path in sorted(self.folder.audit.iterdir()) for line in path.read_text().splitlines()]
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def bench(tmp_path, model):
    return Bench(tmp_path, model)


def test_marked_series_gets_one_result_however_often_it_is_looked_at(bench, tmp_path):
    bench.receive(write_study(tmp_path / "study", 1))
    assert bench.turn()
    (record,) = bench.results()
    assert record.statuses[0] in ("scored", "flagged")
    assert len(record.files) == 2
    bench.turn()
    bench.restart()
    bench.turn()
    next(bench.folder.received.rglob("evaluated.json")).unlink()  # as when it was killed just before
    bench.restart()
    bench.turn()
    assert len(bench.results()) == 1
    assert bench.pool.cases == 1


def test_late_slice_makes_a_new_result_that_names_the_old_one(bench, tmp_path):
    study = write_study(tmp_path / "study", 1)
    late = shutil.move(study / "015.dcm", tmp_path / "late.dcm")
    bench.receive(study)
    bench.turn()
    bench.restart()
    bench.receive(Path(late))
    bench.turn()
    assert [(record.images, record.replaces) for record in bench.results()] == [(15, None), (16, 1)]
    old, new = bench.report(1), bench.report(2)
    (reference,) = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID != new.SOPInstanceUID


def test_late_annotation_replaces_the_report_that_nothing_was_marked(bench, tmp_path):
    study = write_study(tmp_path / "study", 1, marked=False)
    bench.receive(study)
    bench.turn()
    write_mark(study / "mark.dcm", study)
    bench.receive(study / "mark.dcm")
    bench.turn()
    assert bench.results()[0].codes == ("E_CENTER_MISSING",)
    assert [record.replaces for record in bench.results()] == [None, 1]


def test_unmarked_series_waits_where_it_is_told_to(tmp_path, model):
    bench = Bench(tmp_path, model, report_unmarked=False)
    study = write_study(tmp_path / "study", 1, marked=False)
    bench.receive(study)
    bench.turn()
    assert not bench.results()
    write_mark(study / "mark.dcm", study)
    bench.receive(study / "mark.dcm")
    bench.turn()
    assert len(bench.results()) == 1


def test_late_annotation_of_another_series_repeats_nothing(bench, tmp_path):
    study = write_study(tmp_path / "study", 1)
    bench.receive(study)
    bench.turn()
    other = write_study(tmp_path / "other", 2)
    for path in other.iterdir():
        data = dcmread(path)
        data.StudyInstanceUID = "1.2.826.0.1.1.2"
        if data.Modality == "SR":
            for reference in data.CurrentRequestedProcedureEvidenceSequence:
                reference.StudyInstanceUID = "1.2.826.0.1.1.2"
        data.save_as(path)
    bench.receive(other)
    bench.turn()
    assert [record.replaces for record in bench.results()] == [None, None]


def test_own_reports_that_come_back_start_nothing(bench, tmp_path):
    bench.receive(write_study(tmp_path / "study", 1))
    bench.turn()
    back = tmp_path / "back"
    (folder,) = bench.folder.outbox.iterdir()
    shutil.copytree(folder, back)
    bench.receive(back)
    bench.turn()
    assert len(bench.results()) == 1
    assert not any("back" in path.name for path in bench.folder.received.rglob("*"))


def test_series_of_another_modality_and_scouts_get_no_report(bench, tmp_path):
    for number in range(3):
        image = ct_slice(number)
        image.Modality = "MR"
        image.SeriesInstanceUID = "1.9.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.9.1.{number}"
        save(image, tmp_path / "mr" / f"{number}.dcm")
    scout = ct_slice(0)
    scout.ImageType, scout.SeriesInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.9.2"
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = "1.9.2.1"
    save(scout, tmp_path / "scout" / "0.dcm")
    bench.receive(tmp_path / "mr", tmp_path / "scout")
    bench.turn()
    assert not bench.results()
    assert bench.pool.cases == 0


def test_slices_of_two_patients_make_no_object_and_are_said_among_the_errors(bench, tmp_path):
    study = write_study(tmp_path / "study", 1)
    data = dcmread(study / "003.dcm")
    data.PatientID = "SOMEONE-ELSE"
    data.save_as(study / "003.dcm")
    bench.receive(study)
    bench.turn()
    assert not bench.results()
    (record,) = bench.results("errors")
    assert record.problem.startswith("E_MIXED_PATIENT")
    assert "SOMEONE" not in record.problem
    bench.restart()
    bench.turn()
    assert len(bench.results("errors")) == 1


def test_study_that_changes_while_it_is_scored_has_its_result_later(bench, tmp_path):
    study = write_study(tmp_path / "study", 1)
    late = shutil.move(study / "015.dcm", tmp_path / "late.dcm")
    bench.receive(study)
    bench.pool.meanwhile = lambda: bench.receive(Path(late))
    bench.turn()
    assert not bench.results()
    bench.turn()
    assert [record.images for record in bench.results()] == [16]


def test_result_that_does_not_fit_on_the_disk_is_made_later(bench, tmp_path, monkeypatch):
    bench.receive(write_study(tmp_path / "study", 1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.dicomnet.listening.outbox.write_json", full)
    assert not bench.turn()
    assert not bench.results()
    monkeypatch.undo()
    assert bench.turn()
    assert len(bench.results()) == 1


def test_part_of_a_series_that_comes_again_after_retention_waits_for_the_rest(bench, tmp_path):
    study = write_study(tmp_path / "study", 1)
    bench.receive(study)
    bench.turn()
    shutil.rmtree(next(bench.folder.received.iterdir()))
    bench.restart()
    bench.receive(study / "003.dcm", study / "mark.dcm")
    bench.turn()
    assert len(bench.results()) == 1
    assert "series waits for objects that were removed" in bench.events()
    bench.receive(study)
    bench.turn()
    assert len(bench.results()) == 1


@pytest.mark.parametrize("broken", ["cases_of_study", "result_objects"])
def test_fault_of_ours_costs_one_result_and_is_said(bench, tmp_path, monkeypatch, broken):
    def fails(*_, **__):
        raise ZeroDivisionError("CANARY")

    monkeypatch.setattr(f"pipeline.dicomnet.listening.study_scoring.{broken}", fails)
    bench.receive(write_study(tmp_path / "study", 1))
    assert bench.turn()
    (record,) = bench.results("errors")
    assert record.problem == "E_INTERNAL: ZeroDivisionError inside the program"
    assert bench.turn()
    assert len(bench.results("errors")) == 1


class Detector:
    """Finds one lesion in the phantom's block, each time a little elsewhere."""

    digest = "detector"

    def __init__(self):
        self.searched = 0

    def search(self, scans):
        self.searched += len(scans)
        x, y, z = CENTER_LPS
        center = (-x, -y, z + 0.01 * self.searched)
        return [[replace(scan, case_id=f"{scan.case_id}#1", center_mm=center)] for scan in scans]


def test_detector_searches_what_nothing_marks_and_once(tmp_path, model):
    detector = Detector()
    bench = Bench(tmp_path, model, find=detector)
    bench.receive(write_study(tmp_path / "unmarked", 1, marked=False), write_study(tmp_path / "marked", 2))
    bench.turn()
    assert detector.searched == 1
    assert [record.statuses for record in bench.results()] == [("scored",)] * 2
    for mark in bench.folder.received.rglob("evaluated.json"):
        mark.unlink()  # as when it was killed just before
    bench.restart()
    bench.turn()
    assert detector.searched == 1
    assert len(bench.results()) == 2
    study = tmp_path / "unmarked"
    write_mark(study / "mark.dcm", study)
    bench.receive(study / "mark.dcm")
    bench.turn()
    assert detector.searched == 1
    assert sorted(record.replaces or 0 for record in bench.results()) == [0, 0, 1]
