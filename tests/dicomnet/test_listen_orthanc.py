"""The listener between dcmtk's sender and a real Orthanc."""

from __future__ import annotations

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
