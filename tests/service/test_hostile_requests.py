"""Requests that mean harm, or are merely broken: each is refused in words, in time, and within bounds."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import socket
import struct
import threading
import time
import zipfile

import httpx
import numpy as np
import psutil
import pytest
from dicom_writing import write_series
from serving import MIDDLE, serve_when_ready

from pipeline.files import parse_json

LIMITS = {
    "upload_bytes": 4 << 20,
    "unpacked_bytes": 32 << 20,
    "files": 50,
    "uploads": 2,
    "head_seconds": 1.0,
    "silence_seconds": 1.0,
    "upload_seconds": 3.0,
    "connections": 200,
}


@pytest.fixture(scope="module")
def strict(tiny_model, tmp_path_factory):
    """A server with small limits."""
    with serve_when_ready(tiny_model, tmp_path_factory.mktemp("strict"), settings={"limits": LIMITS}) as server:
        yield server


@pytest.fixture
def client(strict):
    with strict.client() as client:
        yield client
        assert client.get("/v2/health/ready").status_code == 200
    assert eventually(lambda: strict.uploads() == [])


def eventually(condition, seconds=10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def packed(members, *, method=zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


def post(client, body, kind="application/zip", **headers):
    answer = client.post("/v1/score", content=body, params=MIDDLE, headers={"Content-Type": kind, **headers})
    return answer.status_code, parse_json(answer.content)["error"]["reason"]


def hidden_directory() -> bytes:
    """An archive whose end tells of one member, and whose ZIP64 end, which Python follows, of a directory of 2 GB."""
    data = packed([("a", b"x")])
    end = data.rindex(b"PK\x05\x06")
    zip64 = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, 2 << 30, 0)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1)
    return data[:end] + zip64 + locator + data[end:]


def encrypted() -> bytes:
    data = bytearray(packed([("a", b"x" * 100)]))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


ARCHIVES = {
    "bomb": (lambda: packed([("a", bytes(30 << 20))]), 413, "more than 200 times its size"),
    "unpacks to too much": (lambda: packed([(f"{n}", bytes(1 << 20)) for n in range(33)]), 413, "at most 33554432"),
    "too many files": (lambda: packed([(f"{n}", b"x") for n in range(51)]), 413, "51 files, expected at most 50"),
    "hidden directory": (hidden_directory, 413, "ZIP64"),
    "encrypted": (encrypted, 400, "encrypted"),
    "lzma": (lambda: packed([("a", b"x" * 99)], method=zipfile.ZIP_LZMA), 400, "not compressed by deflate"),
    "cut off": (lambda: packed([("a", b"x" * 999)])[:-30], 400, "no end"),
    "damaged": (lambda: packed([("a", b"x" * 999)], method=zipfile.ZIP_STORED).replace(b"xxx", b"xyx"), 400, "damaged"),
    "empty folder": (lambda: packed([("a/", b"")]), 400, "holds no file"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_that_cannot_be_meant_is_refused(client, name):
    body, status, words = ARCHIVES[name]
    found, reason = post(client, body())
    assert (found, words in reason) == (status, True), reason


def test_names_in_archives_and_uploads_write_nothing_elsewhere(client, strict, scans):
    outside = strict.folder / "evil.nii.gz"
    data = scans[0].path.read_bytes()
    for name in ("../../evil.nii.gz", str(outside), "..\\..\\evil.nii.gz", "/evil.nii.gz", "a/../../../evil.nii.gz"):
        (row,) = parse_json(
            client.post(
                "/v1/score",
                content=packed([(name, data)]),
                params=MIDDLE,
                headers={"Content-Type": "application/zip"},
            ).content
        )["rows"]
        assert row["status"] == "scored"
        (row,) = parse_json(client.post("/v1/score", files={"file": (name, data)}, data=MIDDLE).content)["rows"]
        assert (row["status"], row["image"]) == ("scored", "000001.nii.gz")
    assert not list(strict.folder.rglob("evil*"))


def test_link_in_an_archive_is_a_file_of_text(client):
    link = zipfile.ZipInfo("scan.nii.gz")
    link.external_attr = 0o120777 << 16
    status, _ = post(client, packed([(link, "/etc/passwd")]))
    assert status == 422


def ask(strict, head: bytes, *, seconds=15.0) -> bytes:
    """Send bytes, and read until the server closes."""
    with socket.create_connection(strict.address, timeout=seconds) as connection:
        connection.sendall(head)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65536):
                answer += block
        return answer


def head_of(strict, *lines: str) -> bytes:
    lines = ("POST /v1/score HTTP/1.1", f"Host: 127.0.0.1:{strict.address[1]}", *lines)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_ten_gigabytes_are_refused_before_they_come(strict, client):
    start = time.monotonic()
    answer = ask(strict, head_of(strict, "Content-Type: application/octet-stream", "Content-Length: 10000000000"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than 4194304 bytes" in answer
    assert time.monotonic() - start < 10  # the connection is closed, not held for the body


def test_endless_body_is_cut_off_at_the_bound(strict, client):
    before = psutil.Process(strict.process.pid).memory_info().rss

    def blocks():
        for _ in range(200):
            yield bytes(1 << 20)

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # closed while the client still sent
        kind = {"Content-Type": "application/octet-stream"}
        assert client.post("/v1/score", content=blocks(), params=MIDDLE, headers=kind).status_code == 413
    assert psutil.Process(strict.process.pid).memory_info().rss - before < 50 << 20


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/sc", b""),  # a head that never ends is not answered
        (b"", b""),
        (b"complete head", b"HTTP/1.1 408"),
    ],
)
def test_slow_client_is_let_go(strict, client, sent, status):
    if sent == b"complete head":
        sent = head_of(strict, "Content-Type: application/octet-stream", "Content-Length: 1000") + b"some"
    start = time.monotonic()
    answer = ask(strict, sent)
    assert answer.startswith(status)
    assert (status == b"") == (answer == b"")
    assert time.monotonic() - start < 10


def test_body_that_trickles_is_let_go_in_all(strict, client):
    head = head_of(strict, "Content-Type: application/octet-stream", "Content-Length: 100000")
    start = time.monotonic()
    with socket.create_connection(strict.address, timeout=15) as connection:
        connection.sendall(head)
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 12:
                connection.sendall(b"x")
                time.sleep(0.2)
    assert time.monotonic() - start < 12


BODIES = {
    "text": (b"hello", "text/plain", 415, "Content-Type is no scan's"),
    "form": (b"a=b", "application/x-www-form-urlencoded", 415, "Content-Type is no scan's"),
    "json": (b"{}", "application/json", 415, "Content-Type is no scan's"),
    "no boundary": (b"", "multipart/form-data", 400, "names no boundary"),
    "other boundary": (b"--a\r\n\r\nx\r\n--a--", "multipart/form-data; boundary=b", 400, "cannot be read"),
    "cut off": (b"--a\r\n\r\nx", "multipart/form-data; boundary=a", 400, "before its last boundary"),
    "empty": (b"--a--\r\n", "multipart/form-data; boundary=a", 400, "no scan"),
    "base64": (
        b"--a\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--a--",
        "multipart/form-data; boundary=a",
        400,
        "Content-Transfer-Encoding",
    ),
    "long header": (b"--a\r\nX: " + b"y" * 9000, "multipart/form-data; boundary=a", 400, "cannot be read"),
}


@pytest.mark.parametrize("name", BODIES)
def test_body_that_cannot_be_read_is_refused(client, name):
    body, kind, status, words = BODIES[name]
    found, reason = post(client, body, kind)
    assert found == status, reason
    assert words in reason


def test_compressed_body_is_refused(client):
    assert post(client, b"x", "application/octet-stream", **{"Content-Encoding": "gzip"})[0] == 415


FIELDS = {
    "unknown": ({"centre_x_mm": "0"}, 400, "'centre_x_mm' is not known; expected case_id"),
    "find": ({"find": "true"}, 501, "start it with --find DETECTOR"),
    "long id": ({"case_id": "x" * 201}, 400, "case_id"),
    "control character": ({"case_id": "a\x1b[31m"}, 400, "printable"),
    "no json": ({"lesions": "[{"}, 400, "is not JSON"),
    "nan": ({"lesions": '[{"center_x_mm": NaN}]'}, 400, "finite numbers"),
    "deep": ({"lesions": "[" * 20000}, 400, "nested too deeply"),
    "no list": ({"lesions": "{}"}, 400, "expected a JSON list"),
    "empty list": ({"lesions": "[]"}, 400, "expected a JSON list"),
    "a list in a cell": ({"lesions": '[{"center_x_mm": [1]}]'}, 400, "neither a number nor a text"),
    "unknown key": ({"lesions": '[{"label": 1}]'}, 400, "'label' is not known"),
    "both": ({"lesions": "[{}]", "center_x_mm": "0"}, 400, "both given"),
    "too many": ({"lesions": json.dumps([{}] * 65)}, 413, "at most 64"),
    "too long": ({"lesions": " " * 70000}, 413, "more than 65536 bytes"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_cannot_be_meant_are_refused(client, scans, name):
    fields, status, words = FIELDS[name]
    answer = client.post("/v1/score", files={"file": ("a.nii.gz", scans[0].path.read_bytes())}, data=fields)
    reason = parse_json(answer.content)["error"]["reason"]
    assert (answer.status_code, words in reason) == (status, True), reason


def test_center_that_is_none_has_a_code(client, scans):
    data = scans[0].path.read_bytes()
    for center in ({**MIDDLE, "center_x_mm": "nan"}, {**MIDDLE, "coordinate_system": "XYZ"}):
        answer = client.post("/v1/score", files={"file": ("a.nii.gz", data)}, data=center)
        assert answer.status_code == 422
        assert parse_json(answer.content)["error"]["code"] == "E_CENTER"


def test_forged_lengths_and_flipped_bytes_get_a_row_or_a_code(client, scans, tmp_path):
    """Lengths of DICOM elements set to all ones, one after the other, and bytes of both formats flipped at random."""
    write_series(tmp_path / "series")
    (first, *others) = sorted((tmp_path / "series").iterdir())
    data = first.read_bytes()
    forged = []
    for place in [data.find(tag) for tag in (b"\xe0\x7f\x10\x00", b"\x28\x00\x10\x00", b"\x20\x00\x32\x00")]:
        assert place > 0
        for length in (b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f", b"\xff\xff\xff\x0f"):
            forged.append(data[: place + 4] + length + data[place + 8 :])
            forged.append(data[: place + 8] + length + data[place + 12 :])
    rng = np.random.default_rng(0)
    for original in (data, scans[0].path.read_bytes()):
        for _ in range(60):
            changed = bytearray(original)
            for place in rng.integers(0, len(changed), 4):
                changed[place] ^= 1 << int(rng.integers(8))
            forged.append(bytes(changed))
    rest = [("file", (path.name, path.read_bytes())) for path in others]
    for body in forged:
        for files in ([("file", ("scan", body))], [("file", (first.name, body)), *rest]):
            answer = client.post("/v1/score", files=files, data=MIDDLE)
            assert answer.status_code in (200, 422), answer.text
            for row in parse_json(answer.content)["rows"]:
                assert (row["probability"] is None) == (row["status"] == "rejected")
                assert row["code"] != "E_INTERNAL"


def test_upload_beyond_the_slots_is_told_when_to_ask_again(strict, client):
    head = head_of(strict, "Content-Type: application/octet-stream", "Content-Length: 1000")
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS["uploads"]):
            connection = stack.enter_context(socket.create_connection(strict.address))
            connection.sendall(head + b"x")
        time.sleep(0.3)
        answer = client.post("/v1/score", files={"file": b"x"}, data=MIDDLE)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert parse_json(answer.content)["error"]["reason"]


def test_client_that_goes_leaves_nothing(strict, client):
    with socket.create_connection(strict.address) as connection:
        connection.sendall(
            head_of(strict, "Content-Type: application/octet-stream", "Content-Length: 9999") + b"x" * 99
        )
        assert eventually(lambda: strict.uploads() != [])
    assert eventually(lambda: strict.uploads() == [], 0.9)  # at once, not when it has been silent for too long


def test_a_thousand_connections_stay_within_bounds(strict, client, scans):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("the machine grants fewer than 3000 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    process = psutil.Process(strict.process.pid)
    before, threads = process.memory_info().rss, process.num_threads()
    held, most_threads = [], 0
    try:
        for _ in range(1000):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(strict.address, timeout=5))
        most_threads = process.num_threads()
        refused = 0
        for connection in held:  # those beyond the bound at once, the others when their head does not come
            connection.settimeout(15)
            with contextlib.suppress(ConnectionError):
                refused += connection.recv(100).startswith(b"HTTP/1.1 503")
        assert refused >= 1000 - 2 * LIMITS["connections"]  # those that were let go meanwhile made room
    finally:
        for connection in held:
            connection.close()
    assert most_threads <= threads + 4
    assert process.memory_info().rss - before < 64 << 20
    assert eventually(lambda: scored(strict, scans))


def scored(strict, scans) -> bool:
    with strict.client() as client:
        answer = client.post("/v1/score", files={"file": ("a.nii.gz", scans[0].path.read_bytes())}, data=MIDDLE)
        return answer.status_code == 200


def test_many_clients_at_once_get_a_row_or_are_told_to_wait(strict, client, scans):
    data = scans[0].path.read_bytes()
    statuses = []

    def send():
        with strict.client() as one:
            for _ in range(3):
                answer = one.post("/v1/score", files={"file": ("a.nii.gz", data)}, data=MIDDLE)
                parse_json(answer.content)
                statuses.append(answer.status_code)

    senders = [threading.Thread(target=send) for _ in range(24)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len(statuses) == 72
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
