"""The listener between dcmtk's sender and a real Orthanc."""

from __future__ import annotations

import subprocess
from io import BytesIO

import pytest
from dicom_network import Listening, Orthanc, require_programs, running, storescu, wait_until, write_study
from pydicom import dcmread
from tiny_models import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def destinations(orthanc):
    return [
        {"name": "dimse", "kind": "c-store", "address": "127.0.0.1", "port": orthanc.dimse, "ae_title": "ORTHANC"},
        {"name": "web", "kind": "stow-rs", "url": f"{orthanc.url}/dicom-web"},
    ]


@pytest.mark.slow
def test_sent_series_comes_back_as_a_report_over_dimse_and_stow(tmp_path, model):
    require_programs("Orthanc", "storescu")
    one, two = Orthanc(tmp_path / "one"), Orthanc(tmp_path / "two")
    to = [destinations(one)[0], destinations(two)[1]]
    listener = Listening(tmp_path, model, destinations=to)
    study = write_study(tmp_path / "study", 1)
    with running(one, two, listener):
        assert storescu(listener.port, study) == 0
        wait_until(lambda: listener.results("archive"), what="the result is delivered")
        for orthanc in (one, two):
            (report,) = [dcmread(BytesIO(orthanc.file(instance))) for instance in orthanc.instances("SR")]
            assert report.PatientID == "CANARY-ID-1"
            assert "111047" in str(report)
        assert listener.stop() == 0
    assert not listener.results("outbox")


@pytest.mark.slow
def test_study_is_fetched_from_an_orthanc_and_its_report_goes_back_there_once(tmp_path, model):
    require_programs("Orthanc", "storescu")
    orthanc = Orthanc(tmp_path / "orthanc")
    listener = Listening(
        tmp_path,
        model,
        quiet_seconds=600.0,
        destinations=[destinations(orthanc)[1]],
        orthanc={"url": orthanc.url, "pull": True, "poll_seconds": 0.5},
    )
    study = write_study(tmp_path / "study", 1)
    with running(orthanc):
        assert storescu(orthanc.dimse, study, called="ORTHANC") == 0  # while nobody listens
        with running(listener):
            wait_until(lambda: listener.results("archive"), what="the result is delivered")
            wait_until(lambda: len(fetched(listener)) == 2, what="the study is seen with its results")
            assert fetched(listener)[0]["stored"] == 17
            assert set(fetched(listener)[1]) - {"at", "process", "event", "study"} == {"own_result"}
            assert len(orthanc.instances("SR")) == 2  # the mark and the report
            assert listener.stop() == 0
    assert len(listener.results("archive")) == 1


def fetched(listener):
    return [line for line in listener.audit() if line["event"] == "study fetched"]


@pytest.mark.slow
def test_senders_need_a_certificate_that_is_trusted(tmp_path, model):
    require_programs("storescu", "openssl")
    for name in ("listener", "sender", "stranger"):
        make_certificate(tmp_path, name)
    listener = Listening(
        tmp_path,
        model,
        destinations=[{"name": "none", "kind": "stow-rs", "url": "http://127.0.0.1:9"}],
        tls={"certificate": "listener.pem", "key": "listener.key", "ca": "sender.pem"},
    )
    image = write_study(tmp_path / "study", 1, slices=range(1), marked=False)

    def tls(name):
        return ["+tls", str(tmp_path / f"{name}.key"), str(tmp_path / f"{name}.pem")]

    trusted = ["+cf", str(tmp_path / "listener.pem")]
    with running(listener):
        assert storescu(listener.port, image, options=[*tls("sender"), *trusted]) == 0
        assert storescu(listener.port, image, options=[*tls("stranger"), *trusted]) != 0
        assert storescu(listener.port, image) != 0


def make_certificate(folder, name):
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    kind = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
