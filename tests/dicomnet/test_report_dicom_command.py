"""``malignancy report-dicom`` and ``score --dicom-results``: from a folder of DICOM to objects in a folder."""

from __future__ import annotations

import json
import shutil
import sys

import highdicom as hd
import numpy as np
import pandas as pd
import pydicom
import pytest
from chest_scans import write_chest_series
from dicom_programs import dciodvfy_errors, dicom_validator_errors
from dicom_writing import write_series
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from scored_series import case_result, reported_model
from shared_data import shared
from small_detectors import save_small_detector
from tiny_models import PREPROCESSING, write_manifest, write_model, write_scans

from pipeline.cases.case import Case
from pipeline.cli import run
from pipeline.config.inputs import Limits
from pipeline.dicomnet.objects.found_cases import FoundScans
from pipeline.dicomnet.objects.identifiers import stable_uid
from pipeline.dicomnet.objects.result_objects import result_objects, write_results
from pipeline.dicomnet.objects.source_series import SourceSeries
from pipeline.errors import CaseError
from pipeline.extras import install_hint
from pipeline.scoring.finding.golden_detector import add_golden_scans

HEADER = "case_id,patient_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system,diameter_mm\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def write_study(folder, *, edit=None):
    """Two series, one of which misses a slice; two lesions in the whole one."""

    def second(image, number):
        image.SeriesInstanceUID = "1.2.826.0.1.9"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.9.{number + 1}"
        if edit:
            edit(image, number)

    write_series(folder / "whole", edit)
    write_series(folder / "gap", second, skip=(7,))
    (folder / "manifest.csv").write_text(
        HEADER + "w1,p,whole,1,2,-3,LPS,7.5\nw2,p,whole,-2,0,4,LPS,\ng1,p,gap,0,0,0,LPS,5\n"
    )
    return folder / "manifest.csv"


def objects(folder):
    """The objects by modality."""
    found = {"SR": [], "OT": []}
    for path in folder.glob("*.dcm"):
        data = pydicom.dcmread(path)
        assert path.name == f"{data.SOPInstanceUID}.dcm"
        found[data.Modality].append((path, data))
    return found


def points(path):
    """By case, the point (LPS mm) and the probability in a report."""
    groups = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
    return {group.tracking_identifier: (group.roi.value[0], group.get_measurements()[0].value) for group in groups}


def test_a_report_for_each_series_and_a_picture_for_each_lesion(model, workspace, capsys):
    manifest = write_study(workspace / "study")
    assert run(["score", model, str(manifest), "--out", "scores", "--no-track", "--dicom-results", "objects"]) == 1
    assert "2 reports and 2 pictures of lesions: objects" in capsys.readouterr().out
    found = objects(workspace / "objects")
    assert (len(found["SR"]), len(found["OT"])) == (2, 2)
    rows = pd.read_parquet("scores/scores.parquet").set_index("case_id")
    scored = {name: place for path, _ in found["SR"] for name, place in points(path).items()}
    assert set(scored) == {"w1", "w2"}
    for name, lps in (("w1", (1, 2, -3)), ("w2", (-2, 0, 4))):
        np.testing.assert_allclose(scored[name][0], lps, atol=1e-6)
        assert scored[name][1] == rows.loc[name, "probability"]
    assert rows.loc["g1", "code"] == "E_SLICE_GAP"
    assert sum("E_SLICE_GAP" in data.to_json() for _, data in found["SR"]) == 1


def test_the_same_objects_from_the_folder_of_scores(model, workspace):
    manifest = write_study(workspace / "study")
    run(["score", model, str(manifest), "--out", "scores", "--no-track", "--dicom-results", "with"])
    assert run(["report-dicom", "scores", str(manifest), "--out", "after"]) == 0
    first, second = (
        {path.name: path.read_bytes() for path in (workspace / name).iterdir()} for name in ("with", "after")
    )
    assert first == second


def test_what_a_detector_finds_is_reported_and_so_is_why_a_series_has_nothing(model, workspace, monkeypatch, capsys):
    save_small_detector(workspace / "detector")
    add_golden_scans(workspace / "detector")
    write_chest_series(workspace / "study" / "whole", [((20.0, 10.0, 5.0), 8.0)])
    write_series(workspace / "study" / "small", lambda image, _: setattr(image, "SeriesInstanceUID", "1.2.826.0.1.9"))
    monkeypatch.setattr("pipeline.jobs.report_dicom.LEAST_REPORTED", 0.0)
    command = ["score", model, "study", "--find", "detector", "--workers", "1", "--out", "both", "--no-track"]
    assert run([*command, "--dicom-results", "objects"]) == 1  # one series is too small to be searched
    assert "2 reports and 5 pictures of lesions: objects" in capsys.readouterr().out
    reports = {data.SeriesInstanceUID: path for path, data in objects(workspace / "objects")["SR"]}
    assert len(reports) == 2
    texts = [pydicom.dcmread(path).to_json() for path in reports.values()]
    assert sum("E_OUT_OF_ENVELOPE" in text for text in texts) == 1
    assert sum("found by a detector" in text for text in texts) == 1
    candidates = pd.read_parquet("both/candidates.parquet").set_index("case_id")
    assert sum(candidates["model_digest"].iloc[0] in text for text in texts) == 1
    rows = pd.read_parquet("both/scores.parquet").set_index("case_id")
    scored = {name: place for path in reports.values() for name, place in points(path).items()}
    assert set(scored) == set(rows.index)
    for name, (place, probability) in scored.items():
        x, y, z = candidates.loc[name, ["center_x_mm", "center_y_mm", "center_z_mm"]]
        np.testing.assert_allclose(place, (-x, -y, z), atol=1e-3)
        assert probability == rows.loc[name, "probability"]
    assert run(["report-dicom", "both", "study", "--out", "after"]) == 0
    assert {path.name for path in (workspace / "after").iterdir()} == {
        path.name for path in (workspace / "objects").iterdir()
    }


def test_candidates_that_are_hardly_lesions_are_in_no_report(tmp_path):
    ct = Case(case_id="ct", image="ct", path=tmp_path, extra={"ward": "north"})
    about = {"scan_id": "ct", "center_x_mm": 1.0, "center_y_mm": 2.0, "center_z_mm": 3.0, "diameter_mm": 8.0}
    about |= {"model": "finder@1", "model_digest": "ab" * 32}
    candidates = [about | {"case_id": f"ct#{n}", "probability_nodule": p} for n, p in ((1, 0.6), (2, 0.05))]
    scan = {"scan_id": "ct", "status": "scored", "code": "", "reason": "", "probability": 0.3}
    found = FoundScans({"ct": scan}, {"ct": candidates}, {f"ct#{n}": {"case_id": f"ct#{n}"} for n in (1, 2)})
    ((case, row),) = found.cases_of(ct, least_probability=0.1)
    assert (case.case_id, case.center_mm, row["case_id"]) == ("ct#1", (1.0, 2.0, 3.0), "ct#1")
    known = {"diameter_mm": "8.0", "probability_nodule": "0.6", "model": "finder@1", "model_digest": "ab" * 32}
    assert case.extra == {"ward": "north"} | known
    ((case, row),) = found.cases_of(ct, least_probability=0.9)
    assert (case, row["code"], row["probability"]) == (ct, "E_CENTER_MISSING", None)
    assert "found no lesion with a probability of 0.9 or more" in row["reason"]


def test_candidates_without_scores_are_no_results(workspace, capsys):
    save_small_detector(workspace / "detector")
    write_chest_series(workspace / "whole", [])
    run(["find", "detector", "whole", "--workers", "1", "--out", "found", "--no-track"])
    assert run(["report-dicom", "found", "whole", "--out", "objects"]) == 2
    assert "found: holds what a detector found, without scores" in capsys.readouterr().err


def test_candidates_that_were_scored_name_their_detector(model, workspace):
    """As ``malignancy find`` writes its ``candidates.csv``: the columns that name the detector are its own."""
    (write_study(workspace / "study")).write_text(
        f"{HEADER.strip()},probability_nodule,model,model_digest\n"
        f"w#1,p,whole,1,2,-3,LPS,7.5,0.75,finder@{'ab' * 6},{'ab' * 32}\n"
        "w#2,p,whole,-2,0,4,LPS,6.0,,,\n"
    )
    manifest = str(workspace / "study" / "manifest.csv")
    assert run(["score", model, manifest, "--out", "scores", "--no-track", "--dicom-results", "objects"]) == 0
    ((path, _),) = objects(workspace / "objects")["SR"]
    assert dciodvfy_errors(path) == []
    assert dicom_validator_errors(path) == []
    found = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
    groups = {group.tracking_identifier: group for group in found}
    assert groups["w#1"][0].to_json().count(f"model digest (SHA-256): {'ab' * 32}") == 2  # probability and diameter
    assert "ab" * 32 not in groups["w#2"][0].to_json()


def test_a_searched_folder_has_a_report_a_series(workspace, tmp_path_factory):
    """Of whole images; a case is a series of the folder."""
    from pipeline.config.inputs import Preprocessing

    whole = Preprocessing(dimensions=3, region="image", size=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0))
    model = write_model(tmp_path_factory.mktemp("whole") / "model", preprocessing=whole)
    write_study(workspace / "study").unlink()
    assert run(["score", str(model), "study", "--out", "scores", "--no-track", "--dicom-results", "objects"]) == 1
    found = objects(workspace / "objects")
    assert (len(found["SR"]), len(found["OT"])) == (2, 0)
    for path, _ in found["SR"]:
        assert dciodvfy_errors(path) == []


def test_other_scans_have_rows_and_no_objects(model, workspace, capsys):
    write_scans(workspace / "scans", 2)
    manifest = write_manifest(workspace / "scans")
    assert run(["score", model, str(manifest), "--out", "scores", "--no-track", "--dicom-results", "objects"]) == 1
    said = capsys.readouterr().out
    assert "0 reports and 0 pictures of lesions: objects\n  2 series have no report:\n" in said
    assert "0000.nii.gz: E_FORMAT: no DICM mark at byte 128" in said
    assert not (workspace / "objects").exists()


def test_images_that_changed_since_scoring_get_no_report(model, workspace, capsys):
    manifest = write_study(workspace / "study")
    run(["score", model, str(manifest), "--out", "scores", "--no-track"])
    capsys.readouterr()
    path = workspace / "study" / "whole" / "IM000"
    image = pydicom.dcmread(path)
    image.PixelData = image.PixelData[::-1]
    image.save_as(path)
    assert run(["report-dicom", "scores", str(manifest), "--out", "objects"]) == 1
    assert "its images are not those that were scored; score it again" in capsys.readouterr().out
    assert len(objects(workspace / "objects")["SR"]) == 1  # of the refused series


def test_cases_and_rows_without_each_other_are_counted(model, workspace, capsys):
    manifest = write_study(workspace / "study")
    run(["score", model, str(manifest), "--out", "scores", "--no-track"])
    manifest.write_text(manifest.read_text().replace("w2,p", "w3,p"))
    capsys.readouterr()
    assert run(["report-dicom", "scores", str(manifest), "--out", "objects"]) == 1
    said = capsys.readouterr().out
    assert "1 rows are of cases that the input does not name, and in no report" in said
    assert "1 cases of the input have no row, and are in no report" in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda scores: shutil.rmtree(scores), "scores: holds no summary.json; give the --out folder of"),
        (
            lambda scores: (scores / "summary.json").write_text('{"cases": 3}'),
            "scores/summary.json: says nothing of the model; run the same `malignancy score` again",
        ),
        (lambda scores: (scores / "scores.parquet").unlink(), "scores/scores.parquet: is missing; give the --out"),
        (lambda scores: (scores / "scores.parquet").write_text("x"), "scores/scores.parquet: is not a table of scores"),
    ],
)
def test_what_is_no_folder_of_scores_is_refused_in_one_line(model, workspace, capsys, damage, message):
    manifest = write_study(workspace / "study")
    run(["score", model, str(manifest), "--out", "scores", "--no-track"])
    damage(workspace / "scores")
    capsys.readouterr()
    assert run(["report-dicom", "scores", str(manifest), "--out", "objects"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_missing_package_is_said_before_anything_is_scored(model, workspace, monkeypatch, capsys):
    manifest = write_study(workspace / "study")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    says = f"writing DICOM results needs highdicom; {install_hint('dicom')}"
    for arguments in (
        ["score", model, str(manifest), "--out", "scores", "--dicom-results", "objects"],
        ["report-dicom", "scores", str(manifest), "--out", "objects"],
    ):
        assert run(arguments) == 2
        assert capsys.readouterr().err == f"malignancy: {says}\n"
    assert not (workspace / "scores").exists()


def test_objects_of_an_ensemble(model, workspace, tmp_path_factory):
    other = write_model(tmp_path_factory.mktemp("other") / "model", seed=1)
    manifest = write_study(workspace / "study")
    models = f"{model},{other}"
    assert run(["score", models, str(manifest), "--out", "scores", "--no-track", "--dicom-results", "objects"]) == 1
    digest = json.loads((workspace / "scores" / "summary.json").read_text())["model_digest"]
    for path, data in objects(workspace / "objects")["SR"]:
        assert data.DeviceSerialNumber == digest
        assert dciodvfy_errors(path) == []


# What DICOM requires of every object of a study, and what makes a patient's id unique.
REPEATED = {
    "AccessionNumber",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyInstanceUID",
    "StudyTime",
}
NAMES_OF_STAFF = ("OperatorsName", "PerformingPhysicianName", "InstitutionName", "StationName", "ProtocolName",
                  "SeriesDescription", "ImageComments", "RequestedProcedureDescription")  # fmt: skip
TEXTS = {"LO", "SH", "PN", "LT", "ST", "UT", "UC"}


def canaries():
    """A value of its own for every text and date of the patient's and the study's modules."""
    from highdicom._standard_utils import get_module_attribute_map

    modules = ("patient", "general-study", "patient-study", "clinical-trial-subject", "clinical-trial-study")
    keywords = {each["keyword"] for name in modules for each in get_module_attribute_map()[name] if not each["path"]}
    values = {}
    for number, keyword in enumerate(sorted({*keywords, *NAMES_OF_STAFF})):
        vr = dictionary_VR(keyword)
        if vr in TEXTS:
            values[keyword] = f"CANARY{number:03d}"
        elif vr == "DA":
            values[keyword] = f"19{number:02d}0203" if number < 100 else f"18{number - 100:02d}0203"
    return values


def test_patients_and_studies_attributes_are_in_the_objects_and_nowhere_else(model, workspace, capfd):
    planted = canaries()
    assert len(planted) >= 60

    def edit(image, _):
        for keyword, value in planted.items():
            setattr(image, keyword, value)
        other = Dataset()
        other.PatientID = "CANARY-NESTED"
        image.OtherPatientIDsSequence = [other]

    manifest = write_study(workspace / "study", edit=edit)
    assert run(["score", model, str(manifest), "--out", "scores", "--dicom-results", "objects"]) == 1
    out, err = capfd.readouterr()
    found = objects(workspace / "objects")
    assert (len(found["SR"]), len(found["OT"])) == (2, 2)
    for _, data in [*found["SR"], *found["OT"]]:
        for keyword in REPEATED & set(planted):
            assert str(data[keyword].value) == planted[keyword]
        shown = data.to_json()
        assert {keyword for keyword, value in planted.items() if value in shown} <= REPEATED
        assert "NESTED" not in shown
    secrets = [value.encode() for value in planted.values()] + [b"CANARY"]
    places = {"stdout": out.encode(), "stderr": err.encode()}
    for path in workspace.rglob("*"):
        if path.is_file() and "study" not in path.parts and "objects" not in path.parts:
            places[str(path)] = path.read_bytes()
        places[f"name of {path}"] = path.name.encode()
    assert any(place.endswith("mlflow.db") for place in places)
    for place, content in places.items():
        assert [value for value in secrets if value in content] == [], place


def test_real_scans_centres_lie_in_their_lesions(model, workspace):
    """Three slabs of real chest CTs, with the centres that radiologists' outlines have."""
    data = shared("data") / "lidc_ct"
    assert run(["score", model, str(data / "nodules.csv"), "--out", "s", "--no-track", "--dicom-results", "o"]) == 1
    rows = pd.read_parquet("s/scores.parquet").set_index("case_id")
    nodules = pd.read_csv(data / "nodules.csv").set_index("case_id")
    shown = {}
    found = objects(workspace / "o")
    for path, _ in [*found["SR"], *found["OT"]]:
        assert dciodvfy_errors(path) == []
    for path, _ in found["SR"]:
        shown |= points(path)
    assert set(shown) == set(rows.index[rows["status"] == "scored"]) != set()
    for name, (point, probability) in shown.items():
        marked = nodules.loc[name, ["center_x_mm", "center_y_mm", "center_z_mm"]].to_numpy(float)  # LPS
        assert np.linalg.norm(point - marked) < 0.1
        assert abs(probability - rows.loc[name, "probability"]) < 1e-6


def test_a_lesion_read_from_our_own_report_is_where_it_was(model, workspace, capsys):
    """What is written as a result can be read as an annotation, to the same place and diameter."""
    manifest = write_study(workspace / "study")
    run(["score", model, str(manifest), "--out", "scores", "--no-track", "--dicom-results", "objects"])
    manifest.write_text("case_id,patient_id,image\nw,p,whole\n")
    reports = [str(path) for path, data in objects(workspace / "objects")["SR"] if "SCOORD3D" in str(data)]
    assert run(["lesions", *reports, "--for", str(manifest), "--out", "study/read.csv"]) == 0, capsys.readouterr()
    table = pd.read_csv("study/read.csv")
    centers = table[["center_x_mm", "center_y_mm", "center_z_mm"]].to_numpy()  # RAS
    np.testing.assert_allclose(centers, [[-1, -2, -3], [2, 0, 4]], atol=1e-3)
    assert table["diameter_mm"][0] == 7.5


@pytest.mark.slow
def test_objects_of_odd_and_damaged_series_are_valid(tmp_path):
    """Whatever the images are like: refused and, where they can be opened, as if scored in their middle."""
    checked = 0
    for folder in (*shared("bad_scans/dicom").iterdir(), *shared("odd_scans").iterdir()):
        try:
            series = SourceSeries.read(folder, modality="CT")
        except CaseError:
            continue
        results = [case_result(probability=None)]
        if series.scan is not None:
            middle = series.scan.affine @ [*(np.array(series.scan.shape) // 2), 1]
            results.append(case_result(center_mm=tuple(middle[:3])))
        for number, result in enumerate(results):
            for path in write_results(result_objects([result], series, reported_model()), tmp_path / str(number)):
                assert dciodvfy_errors(path) == [], folder
                assert dicom_validator_errors(path) == [], folder
                checked += 1
    assert checked > 60


def test_uids_are_valid_and_differ():
    uids = {stable_uid("a", number) for number in range(1000)}
    assert len(uids) == 1000
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 64 for uid in uids)
    assert stable_uid("a", "bc") != stable_uid("ab", "c")


def test_series_are_read_within_the_models_limits(workspace, tmp_path_factory, monkeypatch):
    """A model may allow more than usual, and its reports are of the same scans."""
    larger = PREPROCESSING.model_copy(update={"limits": Limits(max_voxels=2_000_000_000)})
    model = write_model(tmp_path_factory.mktemp("larger") / "model", preprocessing=larger)
    manifest = write_study(workspace / "study")
    asked = []
    read = SourceSeries.read
    monkeypatch.setattr(
        SourceSeries, "read", lambda *source, **options: asked.append(options["limits"]) or read(*source, **options)
    )
    run(["score", str(model), str(manifest), "--out", "scores", "--no-track", "--dicom-results", "objects"])
    assert [limits.max_voxels for limits in asked] == [2_000_000_000] * 2
