"""The C-STORE SCP as a process, with well-behaved senders and hostile ones."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from dicom_network import free_port, wait_until, write_study
from dicom_writing import ct_slice
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import CTImageStorage, Verification

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.child_process import ChildProcess
from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.receiver import run_receiver
from pipeline.dicomnet.wording import MANUFACTURER


class Running:
    """A receiver and its folder."""

    def __init__(self, root: Path, **limits):
        self.config = ListenConfig.model_validate(
            {
                "folder": root,
                "port": free_port(),
                "calling_ae_titles": ["SENDER"],
                "destinations": [{"name": "none", "kind": "stow-rs", "url": "http://127.0.0.1:9"}],
                "limits": {"free_gb": 0.0, "associations": 4, "idle_seconds": 2.0, "association_seconds": 6.0} | limits,
            }
        )
        self.folder = ListenerFolder(root)
        self.folder.make()
        self.child = ChildProcess("receiver", run_receiver, self.config, Audit(self.folder.audit, "test"))
        self.port = self.child.start().port

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.child._process.pid)

    def stored(self) -> list[Path]:
        return sorted(self.folder.received.rglob("*.dcm"))

    def audit(self) -> str:
        return "".join(path.read_text() for path in self.folder.audit.iterdir())


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("receiver") / "listen")
    yield running
    running.child.stop()


def associate(port, *, calling="SENDER", called="MALIGNANCY"):
    application = AE(ae_title=calling)
    application.acse_timeout = application.dimse_timeout = application.network_timeout = 30
    application.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    application.add_requested_context(Verification)
    return application.associate("127.0.0.1", port, ae_title=called)


def store(port, *images) -> list[int]:
    association = associate(port)
    assert association.is_established
    try:
        return [int(association.send_c_store(image).Status) for image in images]
    finally:
        association.release()


def request(association, instance: str, data: bytes) -> tuple[C_STORE, int]:
    """A C-STORE request of any bytes, and the presentation context that it goes by."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 1, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, instance
    primitive.DataSet = BytesIO(data)
    (context,) = (cx for cx in association.accepted_contexts if cx.abstract_syntax == CTImageStorage)
    return primitive, context.context_id


def store_bytes(association, instance: str, data: bytes) -> int:
    """The status that a C-STORE of any bytes gets."""
    association._reactor_checkpoint.clear()  # the answer is for us
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(*request(association, instance, data))
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(response.Status)


def image(number: int, place: int = 0):
    data = ct_slice(place)
    data.StudyInstanceUID, data.SeriesInstanceUID = f"1.9.{number}.2", f"1.9.{number}.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.9.{number}.1.{place + 1}"
    return data


def test_accepted_object_is_there_whole_under_names_without_its_uids(receiver):
    before = set(receiver.stored())
    assert store(receiver.port, image(1), image(1, 1)) == [0, 0]
    new = sorted(set(receiver.stored()) - before)
    assert len(new) == 2
    assert {dcmread(path).PixelData for path in new} == {image(1).PixelData, image(1, 1).PixelData}
    assert all("1.9.1" not in str(path.relative_to(receiver.folder.root)) for path in new)
    assert new[0].stat().st_mode & 0o077 == 0
    assert not list(receiver.folder.receiving.iterdir())


def test_object_that_is_sent_again_is_accepted_and_kept_as_it_was(receiver):
    first, second = image(2), image(2)
    second.PatientName = "OTHER^NAME"
    store(receiver.port, first)
    (path,) = [path for path in receiver.stored() if dcmread(path).SOPInstanceUID == first.SOPInstanceUID]
    stamp = path.stat().st_mtime_ns
    assert store(receiver.port, second) == [0]
    assert path.stat().st_mtime_ns == stamp
    assert dcmread(path).PatientName == first.PatientName


def test_own_result_is_accepted_and_not_kept(receiver):
    before = receiver.stored()
    own = image(3)
    own.Manufacturer = MANUFACTURER
    assert store(receiver.port, own) == [0]
    assert receiver.stored() == before
    assert '"own_result": 1' in wait_until(lambda: receiver.audit() if "own_result" in receiver.audit() else "")


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "MALIGNANCY"), ("SENDER", "OTHER")])
def test_unknown_titles_are_refused(receiver, calling, called):
    association = associate(receiver.port, calling=calling, called=called)
    assert association.is_rejected
    assert association.acceptor.primitive.result == 1  # permanently


def test_object_other_than_the_request_names_is_refused(receiver):
    before = receiver.stored()
    association = associate(receiver.port)
    data = encode(image(4), is_implicit_vr=False, is_little_endian=True)
    assert store_bytes(association, "1.9.4.1.99", data) == 0xA900
    association.release()
    assert receiver.stored() == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x00\x05\x00OB\x00\x00\xf0\xff\xff\xff" + b"x" * 5000,  # an element of almost 4 GB
        b"\x08\x00\x18\x00UI\x09\x00not a uid",
        b"\xff" * 1000,
    ],
)
def test_damaged_header_is_refused_and_the_association_goes_on(receiver, data):
    before = receiver.stored()
    association = associate(receiver.port)
    assert store_bytes(association, "1.9.5.1.1", data) == 0xC000
    assert receiver.stored() == before
    assert association.send_c_store(image(50 + len(data) % 7)).Status == 0
    association.release()


def connect(port) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def ends_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_pdu_with_a_forged_length_ends_the_connection_before_it_is_read(receiver):
    memory = receiver.process.memory_info().rss
    with connect(receiver.port) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0) + b"x" * 100_000)
        assert ends_within(connection, 10)
    assert receiver.process.memory_info().rss < memory + 50_000_000


def test_connection_that_says_nothing_or_stops_inside_a_pdu_is_ended(receiver):
    with connect(receiver.port) as silent, connect(receiver.port) as slow:
        slow.sendall(struct.pack(">BBL", 1, 0, 500) + b"x")
        assert ends_within(silent, 20)
        assert ends_within(slow, 20)


def test_association_that_never_ends_is_ended(receiver):
    association = associate(receiver.port)
    end = time.monotonic() + 30
    while association.is_established and time.monotonic() < end:
        association.send_c_echo()
        time.sleep(0.2)
    assert time.monotonic() < end
    assert store(receiver.port, image(6)) == [0]


def test_association_that_breaks_off_inside_an_object_leaves_nothing(receiver):
    before = receiver.stored()
    association = associate(receiver.port)
    data = encode(image(7), is_implicit_vr=False, is_little_endian=True)
    primitive, context = request(association, "1.9.7.1.1", data)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    for number, part in enumerate(message.encode_msg(context, 400)):
        if number < 3:
            association.dul.send_pdu(part)
    wait_until(lambda: list(receiver.folder.receiving.iterdir()), what="the object has begun to arrive")
    association.abort()
    wait_until(lambda: not list(receiver.folder.receiving.iterdir()), what="its beginning is removed")
    assert receiver.stored() == before


@pytest.mark.slow
def test_a_thousand_connections_at_once_take_few_threads_and_little_memory(receiver):
    memory = receiver.process.memory_info().rss
    threads = 0
    connections = []
    for _ in range(1000):
        connections.append(connect(receiver.port))
        if len(connections) % 50 == 0:
            threads = max(threads, receiver.process.num_threads())
    grown = receiver.process.memory_info().rss - memory
    refused = 0
    for connection in connections:
        connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            refused += connection.recv(10)[:1] == b"\x03"
        connection.close()
    assert refused > 900
    assert threads < 3 * (4 + 16) + 20
    assert grown < 100_000_000
    wait_until(lambda: store_again(receiver.port), seconds=60, what="it receives again")


def store_again(port) -> bool:
    association = associate(port)
    if not association.is_established:
        time.sleep(0.5)
        return False
    status = association.send_c_store(image(8)).Status
    association.release()
    return status == 0


def test_more_associations_than_allowed_are_refused_in_the_protocols_way(receiver):
    open_ones = [associate(receiver.port) for _ in range(4)]
    assert all(association.is_established for association in open_ones)
    one_more = associate(receiver.port)
    assert one_more.is_rejected
    assert one_more.acceptor.primitive.result == 2  # for the moment
    for association in open_ones:
        association.release()


def test_parallel_senders_of_the_same_object_store_it_once(receiver):
    before = len(receiver.stored())
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: store(receiver.port, image(9)), range(4)))
    assert statuses == [[0]] * 4
    assert len(receiver.stored()) == before + 1


def test_full_folder_answers_a700_and_keeps_what_was_accepted(tmp_path):
    running = Running(tmp_path / "listen", quota_gb=1e-6)
    try:
        assert store(running.port, image(1), image(1, 1)) == [0, 0xA700]
        assert [dcmread(path).SOPInstanceUID for path in running.stored()] == ["1.9.1.1.1"]
        assert not list(running.folder.receiving.iterdir())
        assert "quota" in running.audit()
        association = associate(running.port)
        assert association.send_c_echo().Status == 0
        association.release()
    finally:
        running.child.stop()


def test_write_that_fails_answers_a700_and_the_association_goes_on(tmp_path):
    running = Running(tmp_path / "listen")
    try:
        before = running.process.rlimit(psutil.RLIMIT_FSIZE)
        association = associate(running.port)
        running.process.rlimit(psutil.RLIMIT_FSIZE, (500, before[1]))  # as on a full disk, writes fail
        assert association.send_c_store(image(1)).Status == 0xA700
        assert not running.stored()
        assert not list(running.folder.receiving.iterdir())
        running.process.rlimit(psutil.RLIMIT_FSIZE, before)
        assert association.send_c_store(image(1)).Status == 0
        association.release()
        assert len(running.stored()) == 1
    finally:
        running.child.stop()


def test_no_attribute_of_a_patient_or_study_is_in_names_or_audit(receiver, tmp_path):
    study = write_study(tmp_path, 77, slices=range(2), marked=False)
    store(receiver.port, *(dcmread(path) for path in sorted(study.iterdir())))
    names = "\n".join(str(path.relative_to(receiver.folder.root)) for path in receiver.folder.root.rglob("*"))
    for canary in ("CANARY", "1.2.826.0.1.77"):
        assert canary not in names
        assert canary not in receiver.audit()
