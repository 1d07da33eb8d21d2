"""A scan of another body part than the training's is flagged, or refused; its header's text is never repeated."""

import csv
import json
from dataclasses import replace

import pandas as pd
import pytest
from dicom_writing import write_series
from tiny_models import save_tiny, write_model

from pipeline.cli import run
from pipeline.config.body_parts import body_part_term, contradicts, usual_body_parts
from pipeline.config.inputs import Data
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.frames import score_frame
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:.*VR CS")  # pydicom says so of what the tests write
CHEST = Envelope("CT", 20, {}, ("CHEST",))


def write_case(folder, body_part):
    """One series, its header naming a body part, and its manifest."""

    def name(image, number):
        if body_part is not None:
            image.BodyPartExamined = body_part

    write_series(folder / "scan", name)
    cells = {"case_id": "one", "image": "scan", "center_x_mm": 0, "center_y_mm": 0, "center_z_mm": 0}
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, [*cells, "coordinate_system"])
        writer.writeheader()
        writer.writerow(cells | {"coordinate_system": "LPS"})
    return folder / "manifest.csv"


def scored(tmp_path, envelope, body_part):
    manifest = write_case(tmp_path / "case", body_part)
    model = load_model(write_model(tmp_path / "model", envelope=envelope))
    return score_frame(Scorer(model), pd.read_csv(manifest), root=manifest.parent).iloc[
        0
    ]  # what the MLflow model returns


@pytest.mark.parametrize("body_part", ["BRAIN", " brain", "HEAD", "ABDOMEN"])
def test_another_body_part_is_flagged(tmp_path, body_part):
    row = scored(tmp_path, CHEST, body_part)
    assert (row["status"], row["code"]) == ("flagged", "W_BODY_PART")
    assert row["probability"] is not None


@pytest.mark.parametrize("body_part", ["CHEST", "Lung", "CHESTABDPELVIS", "WHOLEBODY", "", None, "MRN-CANARY-1 BRAIN"])
def test_the_same_no_or_an_unknown_body_part_is_not_flagged_nor_repeated(tmp_path, body_part):
    row = scored(tmp_path, CHEST, body_part)
    assert "W_BODY_PART" not in row["warnings"]
    assert "CANARY" not in row.to_json()


def test_another_body_part_is_refused_where_the_configuration_says_so(tmp_path):
    row = scored(tmp_path, replace(CHEST, refuses_other_body_parts=True), "BRAIN")
    assert (row["status"], row["code"]) == ("rejected", "E_OUT_OF_ENVELOPE")
    assert row["reason"].endswith("the header says BRAIN, the model was trained on CHEST")


def test_check_and_score_say_it(tmp_path, capsys):
    manifest = write_case(tmp_path / "case", "BRAIN")
    write_model(tmp_path / "model", envelope=CHEST)
    run(["check", str(manifest), "--model", str(tmp_path / "model")])
    assert "W_BODY_PART" in capsys.readouterr().out
    out = tmp_path / "out"
    assert (
        run(["score", str(tmp_path / "model"), str(manifest), "--out", str(out), "--no-track", "--workers", "1"]) == 0
    )
    assert "W_BODY_PART" in next(csv.DictReader((out / "scores.csv").open()))["warnings"]


def test_an_envelope_without_body_parts_is_written_as_before_and_one_with_them_read_back():
    assert set(replace(CHEST, body_parts=()).to_json()) == {"modality", "cases", "limits"}
    strict = replace(CHEST, refuses_other_body_parts=True)
    assert [Envelope.from_json(json.loads(json.dumps(each.to_json()))) for each in (CHEST, strict)] == [CHEST, strict]
    with pytest.raises(ValueError, match="body_parts: expected known terms"):
        Envelope.from_json(CHEST.to_json() | {"body_parts": ["<b>"]})


def test_body_parts_are_part_of_the_models_digest_and_their_absence_is_not(tmp_path):
    envelopes = (replace(CHEST, body_parts=()), CHEST, replace(CHEST, body_parts=("BRAIN",)))
    digests = [save_tiny(tmp_path / str(n), envelope=each).digests.model for n, each in enumerate(envelopes)]
    assert len(set(digests)) == 3


def test_regions_that_overlap_do_not_contradict():
    assert contradicts("BREAST", ["ABDOMEN", "PELVIS"])
    assert not contradicts("ABDOMENPELVIS", ["LIVER"])
    assert not contradicts("KNEE", ["CHEST", "LEG"])


def test_a_slip_among_hundreds_of_headers_is_no_body_part_of_the_training():
    assert usual_body_parts(["CHEST"] * 300 + ["HEAD"] + [None] * 50 + ["LUNG"] * 30) == ("CHEST", "LUNG")
    assert usual_body_parts([None, None]) == ()


def test_the_configuration_takes_known_terms_only():
    settings = {"manifest": "m.csv", "modality": "CT", "label_source": "histology"}
    assert Data(**settings, body_part=" chest").body_part == "CHEST"
    with pytest.raises(ValueError, match=r"'Haus' is no body part of DICOM's list"):
        Data(**settings, body_part="Haus")
    assert body_part_term("MR. SMITH") is None


def test_the_standards_terms_are_known():
    terms = "ACJOINT CTSPINE HEADNECK ILIUM LARGEINTESTINE MASTOID NECKCHESTABDPELV OPTICCANAL SCJOINT SESAMOID URETER"
    assert [term for term in terms.split() if body_part_term(term) is None] == []
