"""What a listener makes of studies that arrive in parts, are watched for, or cannot be scored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from dicom_network import (
    CENTER_LPS,
    Listening,
    Program,
    free_port,
    require_programs,
    running,
    storescu,
    wait_until,
    write_mark,
    write_study,
)
from pydicom import dcmread
from tiny_models import write_model

from pipeline.cli import run

PROBABILITY = "111047"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


class StoreScp(Program):
    """dcmtk's receiver, which keeps what it gets."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.got = folder / "got"
        self.got.mkdir(parents=True)
        super().__init__(["storescp", "-aet", "PACS", "-od", str(self.got), str(self.port)], folder, "storescp")

    def destination(self):
        return {"name": "pacs", "kind": "c-store", "address": "127.0.0.1", "port": self.port, "ae_title": "PACS"}

    def reports(self, number: int):
        """Reports of a study, in the order in which they came."""
        found = [dcmread(path) for path in sorted(self.got.iterdir(), key=lambda path: path.stat().st_mtime_ns)]
        return [data for data in found if data.Modality == "SR" and data.PatientID == f"CANARY-ID-{number}"]


def numbers(report) -> list[float]:
    """The probabilities in a report."""
    found = []

    def look(items):
        for item in items:
            if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == PROBABILITY:
                found.append(float(item.MeasuredValueSequence[0].FloatingPointValue))
            look(item.get("ContentSequence", ()))

    look(report.ContentSequence)
    return found


@pytest.mark.slow
def test_studies_in_parts_watched_and_unmarked(tmp_path, model):
    require_programs("storescu", "storescp")
    pacs = StoreScp(tmp_path / "pacs")
    watched = tmp_path / "watched"
    watched.mkdir()
    listener = Listening(
        tmp_path,
        model,
        destinations=[pacs.destination()],
        watch={"folder": str(watched), "settle_seconds": 0.5, "remove": True},
    )
    late = write_study(tmp_path / "late", 1)
    unmarked = write_study(tmp_path / "unmarked", 2, marked=False)
    gap = write_study(tmp_path / "gap", 3, slices=[number for number in range(16) if number != 8])
    held_back = [late / "014.dcm", late / "015.dcm"]
    first = [path for path in sorted(late.iterdir()) if path not in held_back]
    with running(pacs, listener):
        assert storescu(listener.port, *first) == 0
        assert storescu(listener.port, unmarked) == 0
        shutil.copytree(gap, watched / "gap")
        wait_until(lambda: len(listener.results("archive")) == 3, what="three results are delivered")

        (before,) = pacs.reports(1)
        assert len(numbers(before)) == 1
        (refused,) = pacs.reports(2)
        assert not numbers(refused)
        assert "E_CENTER_MISSING" in refused.to_json()
        (gapped,) = pacs.reports(3)
        assert not numbers(gapped)
        assert "E_SLICE_GAP" in gapped.to_json()
        assert not [path for path in watched.rglob("*") if path.is_file()]

        assert storescu(listener.port, *held_back) == 0
        write_mark(unmarked / "mark.dcm", unmarked)
        assert storescu(listener.port, unmarked) == 0
        wait_until(lambda: len(listener.results("archive")) == 5, what="two results are replaced")
        for number in (1, 2):
            old, new = pacs.reports(number)
            assert old.SOPInstanceUID != new.SOPInstanceUID
            (reference,) = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
            assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
            assert len(numbers(new)) == 1
        replaced = [line["replaces"][-4:] for line in listener.audit() if "replaces" in line]
        assert replaced == ["0001", "0001"]

        assert storescu(listener.port, late) == 0  # all of it once more: nothing new
        listener.kill()
        listener.start()
        wait_until(lambda: any(line["event"] == "association ended" for line in listener.audit()[-30:]))
        assert listener.stop() == 0
    assert len(listener.results("archive")) == 5
    assert not listener.results("outbox")
    assert not listener.results("errors")
    text = "".join(path.read_text() for path in (listener.data / "audit").iterdir()) + listener.log()
    assert "CANARY" not in text
    assert "1.2.826" not in text
    _same_probability_as_the_command(tmp_path, model, late, numbers(pacs.reports(1)[1])[0])


def _same_probability_as_the_command(folder, model, study, probability):
    scans = folder / "scans"
    shutil.copytree(study, scans / "study")
    (scans / "study" / "mark.dcm").unlink()
    x, y, z = CENTER_LPS
    header = "case_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system"
    (scans / "manifest.csv").write_text(f"{header}\none,study,{x},{y},{z},LPS\n")
    out = folder / "scores"
    assert run(["score", str(model), str(scans / "manifest.csv"), "--out", str(out), "--no-track"]) == 0
    (row,) = pd.read_parquet(out / "scores.parquet").to_dict("records")
    assert row["probability"] == pytest.approx(probability, abs=1e-6)
