"""The durable outbox, what is sent from it, and what is forgotten."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.config.listening import ListenConfig, Retry
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.destinations import Answer, judge_response, judge_status
from pipeline.dicomnet.listening.listener_folder import ListenerFolder, ResultName, SeriesKey, uid_digest
from pipeline.dicomnet.listening.outbox import NewResult, Outbox, ResultRecord
from pipeline.dicomnet.listening.outbox_sender import Backoff, Delivery
from pipeline.dicomnet.listening.reception import ObjectIdentity, store_object
from pipeline.dicomnet.listening.retention import forget_old
from pipeline.dicomnet.objects.result_objects import ResultObjects
from pipeline.errors import UsageError

KEY = SeriesKey(uid_digest("1.2"), uid_digest("1.2.1"))


def an_object(number: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.{number}"
    return data


def a_result(number: int = 1, *, key: SeriesKey = KEY) -> NewResult:
    objects = ResultObjects(an_object(10 * number), (an_object(10 * number + 1),))
    return NewResult(key, f"inputs{number}", 16, ["scored"], [""], objects)


@pytest.fixture
def folder(tmp_path):
    made = ListenerFolder(tmp_path / "listen")
    made.make()
    return made


@dataclass
class Recorder:
    """A destination that gives the answers it is told to, the last one again and again."""

    answers: list[Answer]
    sent: list[list[str]] = field(default_factory=list)

    def send(self, paths):
        self.sent.append([path.name for path in paths])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def delivery(folder, *answers: Answer, name: str = "pacs") -> tuple[Delivery, Recorder]:
    config = ListenConfig.model_validate(
        {
            "folder": folder.root,
            "calling_ae_titles": ["A"],
            "destinations": [{"name": name, "kind": "stow-rs", "url": "http://127.0.0.1:9"}],
        }
    )
    recorder = Recorder(list(answers))
    return Delivery(config.destinations[0], config, Outbox(folder), Audit(folder.audit, "test"), recorder), recorder


def test_result_is_sent_with_its_report_last_and_then_archived(folder):
    name = Outbox(folder).commit(a_result(), number=1)
    sending, recorder = delivery(folder, Answer("sent"))
    sending.step(["pacs"])
    assert recorder.sent == [["1.2.3.11.dcm", "1.2.3.10.dcm"]]
    assert [path.name for path in folder.archive.iterdir()] == [str(name)]
    sending.step(["pacs"])
    assert len(recorder.sent) == 1


def test_result_waits_for_every_destination(folder):
    name = Outbox(folder).commit(a_result(), number=1)
    one, _ = delivery(folder, Answer("sent"), name="one")
    two, _ = delivery(folder, Answer("unreachable", "no association"), Answer("sent"), name="two")
    one.step(["one", "two"])
    two.step(["one", "two"])
    assert (folder.outbox / str(name)).is_dir()
    two.step(["one", "two"])
    assert (folder.archive / str(name)).is_dir()


def test_refused_result_goes_to_the_errors_after_three_tries_and_holds_nothing_up(folder):
    outbox = Outbox(folder)
    bad, good = outbox.commit(a_result(1), number=1), outbox.commit(a_result(2), number=2)
    os.utime(folder.outbox / str(bad) / "record.json", (1, 1))
    refusal = Answer("refused", "status A900")
    sending, _ = delivery(folder, refusal, Answer("sent"), refusal, refusal)
    sending.step(["pacs"])
    assert (folder.archive / str(good)).is_dir()
    sending.step(["pacs"])
    assert (folder.outbox / str(bad)).is_dir()
    sending.step(["pacs"])
    assert (folder.errors / str(bad)).is_dir()
    assert "A900" in (folder.errors / str(bad) / "refused-pacs").read_text()


def test_unreachable_destination_is_tried_again_for_ever_with_growing_pauses(folder):
    name = Outbox(folder).commit(a_result(), number=1)
    sending, recorder = delivery(folder, Answer("unreachable", "no association"))
    waits = [sending.step(["pacs"]) for _ in range(30)]
    assert len(recorder.sent) == 30
    assert waits[0] <= 2.0
    assert 150.0 <= waits[-1] <= 300.0
    assert (folder.outbox / str(name)).is_dir()


def test_pauses_double_up_to_their_limit_and_begin_anew_after_a_success():
    backoff = Backoff(Retry(first_seconds=1.0, longest_seconds=10.0), random.Random(0))
    waits = [backoff.failure() for _ in range(6)]
    for wait, longest in zip(waits, (1, 2, 4, 8, 10, 10), strict=True):
        assert longest / 2 <= wait <= longest
    backoff.success()
    assert backoff.failure() <= 1.0


def test_kill_before_the_rename_leaves_no_result_and_the_start_clears_it_away(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.files.shutil.rmtree", lambda *_, **__: None)  # a killed process tidies nothing
    monkeypatch.setattr("pipeline.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Outbox(folder).commit(a_result(), number=1)
    monkeypatch.undo()
    assert list(folder.outbox.iterdir())
    assert not Outbox(folder).waiting("pacs")
    assert not Outbox(folder).latest()
    folder.clear_unfinished()
    assert not list(folder.outbox.iterdir())


def test_full_disk_leaves_no_result(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        Outbox(folder).commit(a_result(), number=1)
    assert not list(folder.outbox.iterdir())


def test_latest_result_is_found_wherever_it_lies(folder):
    outbox = Outbox(folder)
    outbox.commit(a_result(1), number=1)
    delivery(folder, Answer("sent"))[0].step(["pacs"])
    outbox.commit(a_result(2), number=2)
    assert {key: (number, record.inputs) for key, (number, record) in outbox.latest().items()} == {KEY: (2, "inputs2")}
    assert [data.SOPInstanceUID for data in outbox.earlier_report(ResultName(KEY, 1))] == ["1.2.3.10"]


def test_result_that_could_not_be_made_lies_among_the_errors(folder):
    name = Outbox(folder).commit(NewResult(KEY, "inputs", 16, problem="E_FORMAT: no UID"), number=1)
    assert ResultRecord.read(folder.errors / str(name)).problem == "E_FORMAT: no UID"
    assert not Outbox(folder).waiting("pacs")
    assert not Outbox(folder).earlier_report(name)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "sent"),
        (0xB000, "sent"),
        (0x0111, "sent"),
        (0xA700, "unreachable"),
        (0x0110, "unreachable"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0x0122, "refused"),
    ],
)
def test_statuses_are_judged_as_the_standard_has_them(status, outcome):
    assert judge_status(status).outcome == outcome


def response(*, stored=(), failed=()) -> Dataset:
    data = Dataset()
    data.ReferencedSOPSequence = [Dataset() for _ in stored]
    for item, uid in zip(data.ReferencedSOPSequence, stored, strict=True):
        item.ReferencedSOPInstanceUID = uid
    data.FailedSOPSequence = [Dataset() for _ in failed]
    for item, (uid, reason) in zip(data.FailedSOPSequence, failed, strict=True):
        item.ReferencedSOPInstanceUID, item.FailureReason = uid, reason
    return data


def test_stow_answer_counts_only_when_it_names_every_object():
    objects = [an_object(1), an_object(2)]
    assert judge_response(response(stored=["1.2.3.1", "1.2.3.2"]), objects).outcome == "sent"
    assert judge_response(response(stored=["1.2.3.1"]), objects).outcome == "unreachable"
    assert judge_response(Dataset(), objects).outcome == "unreachable"
    assert judge_response(response(stored=["1.2.3.1"], failed=[("1.2.3.2", 0xA900)]), objects).outcome == "refused"
    assert judge_response(response(stored=["1.2.3.1"], failed=[("1.2.3.2", 0x0111)]), objects).outcome == "sent"


def make_study(folder, *, evaluated: bool) -> Path:
    series = folder.received / KEY.study / KEY.series
    series.mkdir(parents=True)
    (series / "a.dcm").write_bytes(b"a")
    if evaluated:
        (series.parent / "evaluated.json").write_text('{"files": ""}')
    return series.parent


def test_old_study_is_forgotten_once_its_results_are_delivered_and_their_record_stays(folder):
    study = make_study(folder, evaluated=True)
    name = Outbox(folder).commit(a_result(), number=1)
    audit = Audit(folder.audit, "test")
    later = study.stat().st_mtime + 15 * 86_400
    assert forget_old(folder, audit, days=14, now=later) == 0
    delivery(folder, Answer("sent"))[0].step(["pacs"])
    assert forget_old(folder, audit, days=16, now=later) == 0
    assert forget_old(folder, audit, days=14, now=later) == 2
    assert not list(folder.received.iterdir())
    assert not list(folder.receiving.iterdir())
    assert not list((folder.archive / str(name)).glob("*.dcm"))
    assert Outbox(folder).latest()[KEY][1].inputs == "inputs1"
    assert Outbox(folder).earlier_report(name) == []


def test_study_without_its_results_is_never_forgotten(folder):
    study = make_study(folder, evaluated=False)
    assert forget_old(folder, Audit(folder.audit, "test"), days=14, now=study.stat().st_mtime + 1e9) == 0
    assert study.is_dir()


def test_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="holds photos and no received/"):
        ListenerFolder(tmp_path).make()


def test_full_disk_while_a_delivery_is_noted_has_it_sent_again(folder, monkeypatch):
    name = Outbox(folder).commit(a_result(), number=1)
    sending, recorder = delivery(folder, Answer("sent"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.dicomnet.listening.outbox.write_json", full)
    with pytest.raises(OSError, match="No space"):
        sending.step(["pacs"])
    monkeypatch.undo()
    sending.step(["pacs"])
    assert len(recorder.sent) == 2
    assert (folder.archive / str(name)).is_dir()


def test_object_that_comes_while_its_study_is_removed_is_kept(folder):
    """Whoever takes in waits for the removal, and the removal for whoever takes in."""
    study = make_study(folder, evaluated=True)
    late = study.stat().st_mtime + 15 * 86_400
    part = folder.receiving / "late.part"
    part.write_bytes(b"late")
    target = ObjectIdentity("1.2", "1.2.1.9", "1.2", "1.2.1", is_own=False)
    with folder.taking_in(removing=True):
        taking = threading.Thread(target=store_object, args=(folder, part, target))
        taking.start()
        taking.join(0.3)
        assert taking.is_alive()
        os.replace(study, folder.receiving / "away.old")
    taking.join()
    assert [path.read_bytes() for path in folder.received.rglob("*.dcm")] == [b"late"]
    assert forget_old(folder, Audit(folder.audit, "test"), days=14, now=late) == 0
