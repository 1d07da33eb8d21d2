"""``malignancy evaluate`` of a detector: who is judged, what is fitted where, what stands in the folder."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pyarrow.parquet
import pytest
from small_detectors import save_small_detector
from tiny_models import write_model

from pipeline.cases.scan_table import read_scan_table
from pipeline.cli import run
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code, ModelError, TableError, UsageError
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.files import sha256_json
from pipeline.imaging.decoded import decode
from pipeline.imaging.image import scan_facts
from pipeline.imaging.read import open_scan
from pipeline.jobs import evaluate_detector as job
from pipeline.jobs.evaluate_detector import DetectorOptions, evaluate_detector
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.finding.finder import Found
from pipeline.scoring.finding.searchable_scan import SearchableScan
from pipeline.scoring.model_directory import load_model

HEADER = "case_id,patient_id,image,label,center_x_mm,center_y_mm,center_z_mm,coordinate_system,diameter_mm,ignore,solid"
SPLITS = ("train", "validation", *["calibration"] * 18, *["test"] * 14)


def lesion_place(number):
    return (float(number % 5) - 2.0, 3.0, -4.0)


@pytest.fixture(scope="module")
def whole_scans(tmp_path_factory):
    """Small scans; two of three hold a lesion, half of these a malignant one; one lesion is to be ignored."""
    folder = tmp_path_factory.mktemp("whole")
    rng, affine = np.random.default_rng(0), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -40
    scans, lesions = ["case_id,image,patient_id,label,split"], [HEADER]
    for number, split in enumerate(SPLITS):
        voxels = rng.normal(-850, 40, (40, 40, 40))
        holds, malignant = number % 3 != 0, number % 3 == 1
        if holds:
            index = np.rint((np.array(lesion_place(number)) + 40) / 2).astype(int)
            voxels[tuple(slice(at - 2, at + 3) for at in index)] += 900 if malignant else 300
            x, y, z = lesion_place(number)
            lesions.append(f"l{number},p{number},s{number}.nii.gz,{int(malignant)},{x},{y},{z},RAS,10,0,{number % 2}")
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / f"s{number}.nii.gz")
        scans.append(f"s{number},s{number}.nii.gz,p{number},{int(malignant)},{split}")
    lesions.append("one,p29,s29.nii.gz,,30,30,30,RAS,6,1,")
    (folder / "scans.csv").write_text("\n".join(scans) + "\n")
    (folder / "lesions.csv").write_text("\n".join(lesions) + "\n")
    return folder


class FakeFinder:
    """Finds every lesion 2 mm beside its centre but one, and a place without one; cannot search one scan."""

    def __init__(self, detector, *, root):
        self.detector = detector

    def read(self, case):
        if case.case_id == "s27":
            raise CaseError(Code.E_SLICE_GAP, case.path, "a slice is missing; export the whole series")
        scan = decode(open_scan(case.path, limits=Limits(), modality="CT"))
        facts = scan_facts(scan, modality="CT")
        return SearchableScan(np.zeros((40, 40, 40), np.uint8), np.eye(4), (), {}, facts, scan)

    def find(self, scan):
        number = int(scan.scan.path.name.removesuffix(".nii.gz").removeprefix("s"))
        x, y, z = lesion_place(number)
        others = (0.5,) * (len(self.detector.classes) - 1)
        nothing = Candidate((-20.0, -20.0, -20.0), 5.0, (0.2 + number / 1000, *others))
        hit = Candidate((x + 2.0, y, z), 9.0, (0.9, *others))
        candidates = (hit, nothing) if number % 3 != 0 and number != 28 else (nothing,)
        return Found(candidates, scan.facts, (), {})


@pytest.fixture
def fake_finder(monkeypatch):
    monkeypatch.setattr(job, "Finder", FakeFinder)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors") / "detector"
    save_small_detector(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("classifiers") / "classifier")


def options(**settings):
    return DetectorOptions(resamples=100, **settings)


def test_detector_alone_is_judged_on_the_test_split(whole_scans, detector, fake_finder, tmp_path):
    result = evaluate_detector(str(detector), whole_scans / "scans.csv", tmp_path / "out", options())
    # 14 test scans, s20 to s33: s27 cannot be searched; of those with a lesion s28 is missed.
    assert result.evaluation.n_scans == 13
    assert result.evaluation.n_lesions == 9
    assert result.evaluation.candidates_by_outcome == {"hit": 8, "duplicate": 0, "ignored": 0, "false positive": 13}
    assert result.intervals["sensitivity_at_1"].estimate == pytest.approx(8 / 9)
    assert result.intervals["localisation_median_mm"].estimate == pytest.approx(2.0)
    assert result.rejected == (("s27", "E_SLICE_GAP", "a slice is missing; export the whole series"),)
    assert (result.detector, result.scan_probability) == (None, None)
    assert "probability of a scan: none is fitted: no classifier was given" in result.summary
    assert "rejected s27: E_SLICE_GAP" in result.summary
    html = result.report.read_text()
    assert "simulated intensities" in html
    assert "Rejected, E_SLICE_GAP" in html
    plain = json.loads((result.folder / "evaluation.json").read_text())
    assert plain["flow"] == {"given": 34, "of other splits": 20, "rejected, E_SLICE_GAP": 1, "judged": 13}
    assert {group["name"] for group in plain["groups"]} == {"diameter_mm", "texture"}
    assert sorted(path.name for path in (result.folder / "figures").iterdir())[0] == "candidate_reliability.png"


def test_every_candidate_and_scan_has_a_row(whole_scans, detector, fake_finder, tmp_path):
    result = evaluate_detector(str(detector), whole_scans / "scans.csv", tmp_path / "out", options())
    rows = pyarrow.parquet.read_table(result.folder / "candidates.parquet").to_pylist()
    assert len(rows) == 21
    first = next(row for row in rows if row["case_id"] == "s22#1")
    assert first["outcome"] == "hit"
    assert first["lesion"] == "l22"
    assert first["probability_nodule"] == 0.9
    assert (first["center_x_mm"], first["coordinate_system"]) == (2.0, "RAS")
    with (result.folder / "scans.csv").open() as lines:
        scans = {row["scan_id"]: row for row in csv.DictReader(lines)}
    assert len(scans) == 14
    assert scans["s27"]["code"] == "E_SLICE_GAP"
    assert (scans["s28"]["lesions"], scans["s28"]["hits"], scans["s28"]["false_positives"]) == ("1", "0", "1")
    assert scans["s29"]["probability"] == ""


def test_scan_probability_is_fitted_on_the_calibration_split_alone(
    whole_scans, detector, classifier, fake_finder, tmp_path
):
    result = evaluate_detector(
        str(detector), whole_scans / "scans.csv", tmp_path / "out", options(classifier=str(classifier))
    )
    assert result.scan_probability is not None
    assert result.scan_probability.classifier_digest == load_model(classifier).description.digests.model
    kept = load_detector(result.detector)
    assert kept.scan_probability == result.scan_probability
    assert kept.description.digests.model != load_detector(detector).description.digests.model
    rows = pyarrow.parquet.read_table(result.folder / "candidates.parquet").to_pylist()
    by_scan = {}
    for row in rows:
        by_scan.setdefault(row["case_id"].split("#")[0], []).append(row)
    with (result.folder / "scans.csv").open() as lines:
        scans = [row for row in csv.DictReader(lines) if not row["code"]]
    for row in scans:
        candidates = by_scan[row["scan_id"]]
        expected = result.scan_probability.apply(
            [each["probability_nodule"] for each in candidates], [each["probability_malignant"] for each in candidates]
        )
        assert float(row["probability"]) == pytest.approx(expected)
    plain = json.loads((result.folder / "evaluation.json").read_text())
    assert plain["second_stage"]["n_lesions"] == 8
    assert plain["scans"]["n"] == 13
    assert "auroc_difference" in plain["second_stage"]["intervals"]
    assert f"detector: {result.detector}" in result.summary
    again = evaluate_detector(
        str(result.detector), whole_scans / "scans.csv", tmp_path / "again", options(classifier=str(classifier))
    )
    assert (again.detector, again.scan_probability) == (None, result.scan_probability)


def test_changing_test_labels_changes_no_fitted_number(whole_scans, detector, classifier, fake_finder, tmp_path):
    first = evaluate_detector(
        str(detector), whole_scans / "scans.csv", tmp_path / "a", options(classifier=str(classifier))
    )
    table = (whole_scans / "scans.csv").read_text()
    turned = whole_scans / "turned.csv"
    turned.write_text("\n".join(line.replace(",1,test", ",0,test") for line in table.splitlines()) + "\n")
    second = evaluate_detector(str(detector), turned, tmp_path / "b", options(classifier=str(classifier)))
    assert second.scan_probability == first.scan_probability
    assert json.loads((tmp_path / "b/evaluation.json").read_text())["scans"]["n_positive"] == 0


def test_too_few_calibration_scans_leave_scans_without_a_probability(
    whole_scans, detector, classifier, fake_finder, tmp_path
):
    few = whole_scans / "few.csv"
    lines = (whole_scans / "scans.csv").read_text().splitlines()
    few.write_text("\n".join(line for line in lines if not line.endswith("calibration")) + "\n")
    rows = (whole_scans / "lesions.csv").read_text().splitlines()
    kept = [row for row in rows[1:] if any(f",{row.split(',')[2]}," in line for line in few.read_text().splitlines())]
    (whole_scans / "few_lesions.csv").write_text("\n".join([rows[0], *kept]) + "\n")
    result = evaluate_detector(
        str(detector),
        few,
        tmp_path / "out",
        options(classifier=str(classifier), lesions=whole_scans / "few_lesions.csv"),
    )
    assert result.scan_probability is None
    assert "no calibration scan is left of patients that neither model was trained on" in result.summary


def test_patients_that_the_detector_has_seen_are_left_out(whole_scans, tmp_path, fake_finder):
    folder = tmp_path / "detector"
    save_small_detector(folder)
    description = load_detector(folder).description
    seen = description.patients.of("salt", {"train": ["p21"], "validation": ["p22"], "calibration": ["p23"]})
    values = description.model_dump(mode="json", exclude_unset=True) | {"patients": seen.model_dump(mode="json")}
    (folder / "model.json").write_text(json.dumps(values))
    result = evaluate_detector(str(folder), whole_scans / "scans.csv", tmp_path / "out", options())
    assert result.evaluation.n_scans == 10
    assert "3 scans of patients that the detector has seen were left out" in result.summary


def test_table_without_a_split_is_judged_whole(whole_scans, detector, fake_finder, tmp_path):
    lines = (whole_scans / "scans.csv").read_text().splitlines()
    (whole_scans / "all.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    result = evaluate_detector(str(detector), whole_scans / "all.csv", tmp_path / "out", options())
    assert result.evaluation.n_scans == 33


def test_scans_without_lesions_are_refused_before_any_is_searched(whole_scans, detector, monkeypatch, tmp_path):
    monkeypatch.setattr(job, "Finder", None)
    lines = (whole_scans / "lesions.csv").read_text().splitlines()
    (whole_scans / "none.csv").write_text("\n".join([lines[0], lines[-1]]) + "\n")
    with pytest.raises(UsageError, match="has no lesion in the 14 scans to be judged"):
        evaluate_detector(
            str(detector), whole_scans / "scans.csv", tmp_path / "out", options(lesions=whole_scans / "none.csv")
        )
    assert not (tmp_path / "out").exists()


def test_models_of_the_wrong_kind_are_named(whole_scans, detector, classifier, tmp_path, capsys):
    scans = str(whole_scans / "scans.csv")
    with pytest.raises(ModelError, match="is a classifier, expected a detector"):
        evaluate_detector(str(classifier), whole_scans / "scans.csv", tmp_path / "out")
    with pytest.raises(ModelError, match="is a detector of lesions in whole scans, expected a classifier"):
        evaluate_detector(
            str(detector), whole_scans / "scans.csv", tmp_path / "out", DetectorOptions(classifier=str(detector))
        )
    arguments = ["evaluate", str(classifier), scans, "--out", str(tmp_path / "out")]
    assert run([*arguments, "--classifier", str(classifier)]) == 2
    assert "--classifier has no meaning" in capsys.readouterr().err


def test_command_judges_a_detector_and_exits_with_one_where_a_scan_was_rejected(
    whole_scans, detector, fake_finder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert run(["evaluate", str(detector), str(whole_scans / "scans.csv"), "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "CPM (mean sensitivity at 1/8 to 8 false positives a scan): 0." in said
    assert f"report: {out / 'report.html'}" in said


def test_report_shows_candidates_where_they_are_asked_for(whole_scans, detector, fake_finder, tmp_path):
    asked = evaluate_detector(str(detector), whole_scans / "scans.csv", tmp_path / "a", options(pictures=True))
    assert "s20#1: hit, probability 0.900" in asked.report.read_text()
    assert "s28: missed lesion l28" in asked.report.read_text()
    bare = evaluate_detector(str(detector), whole_scans / "scans.csv", tmp_path / "b", options())
    assert "s20#1" not in bare.report.read_text()


def test_fitted_detector_is_the_same_but_for_the_scan_probability(detector, tmp_path):
    from pipeline.scoring.finding.detector_copy import copy_with_scan_probability

    fitted = ScanProbability(0.05, 0.9, sha256_json("classifier"))
    source = tmp_path / "source"
    shutil.copytree(detector, source)
    (source / "golden").mkdir()
    (source / "golden" / "golden.json").write_text("{}")
    copy_with_scan_probability(source, tmp_path / "copy", fitted)
    assert (tmp_path / "copy/golden/golden.json").exists()
    before, after = load_detector(detector), load_detector(tmp_path / "copy")
    assert after.scan_probability == fitted
    assert after.description.weights_sha256 == before.description.weights_sha256
    assert after.description.patients == before.description.patients
    with pytest.raises(FileExistsError):
        copy_with_scan_probability(detector, tmp_path / "copy", fitted)


def test_faulty_table_stops_before_the_detector_is_loaded(whole_scans, tmp_path):
    lines = (whole_scans / "lesions.csv").read_text().replace(",10,0,", ",-10,0,")
    (whole_scans / "wrong.csv").write_text(lines)
    with pytest.raises(TableError, match="diameter_mm is '-10'"):
        evaluate_detector(
            "nowhere", whole_scans / "scans.csv", tmp_path / "out", options(lesions=whole_scans / "wrong.csv")
        )
    assert read_scan_table(whole_scans / "scans.csv").lesions_of["s1"][0].case_id == "l1"
