"""``malignancy train`` with ``task: detection``: from tables to a calibrated, judged, registered detector."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from chest_scans import write_chest
from detection_sets import read_rows, write_detection_set, write_rows

import pipeline
from pipeline.cases.case import Case
from pipeline.cli import run
from pipeline.config.file import load_config, load_detection_config
from pipeline.errors import ConfigError
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.finding.finder import Finder
from pipeline.scoring.finding.finding_frames import find_frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the data, of the run, and what the command printed."""
    folder = tmp_path_factory.mktemp("balls")
    write_detection_set(folder)
    before, output = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output):
            code = run(["train", "find.yaml"])
    finally:
        os.chdir(before)
    (run_folder,) = (folder / "runs").iterdir()
    return folder, run_folder, code, output.getvalue()


def test_training_ends_with_a_model_that_loads(trained):
    _, run_folder, code, printed = trained
    assert code in (0, 1)  # 1 where so small a training could not be calibrated
    assert re.search(r"^model: (models:/balls/1|runs:/\w+/model)$", printed, re.M)
    assert "train 3 scans with 6 lesions" in printed
    detector = load_detector(run_folder / "model")
    assert detector.classes == ("nodule", "solid")
    assert detector.description.lesions.source == "balls drawn for a test"
    assert detector.description.patients.seen_patients(["p0", "p3", "p4", "p6"]) == {"p0", "p3", "p4"}
    provenance = detector.description.provenance
    assert provenance["config"]["task"] == "detection"
    assert set(provenance["calibration"]) == {"nodule", "solid"}
    assert len(provenance["dataset_sha256"]) == 64


def test_the_test_split_is_judged(trained):
    _, run_folder, _, _ = trained
    evaluation = json.loads((run_folder / "evaluation.json").read_text())
    assert evaluation["n_scans"] == 2
    assert evaluation["n_lesions"] == 4
    assert 0 <= evaluation["intervals"]["cpm"]["estimate"] <= 1
    rows = pq.read_table(run_folder / "candidates.parquet").to_pylist()
    assert {row["image"] for row in rows} <= {"s6.nii.gz", "s7.nii.gz"}
    assert "simulated intensities" in (run_folder / "report.html").read_text()


def test_finding_gives_the_candidates_of_the_training(trained):
    folder, run_folder, _, _ = trained
    finder = Finder(load_detector(run_folder / "model"), root=folder)
    found = finder.search(Case(case_id="s6", image="s6.nii.gz", path=folder / "s6.nii.gz")).candidates
    rows = [row for row in pq.read_table(run_folder / "candidates.parquet").to_pylist() if row["image"] == "s6.nii.gz"]
    assert len(rows) == len(found) > 0
    np.testing.assert_allclose([row["probability_nodule"] for row in rows], [each.probabilities[0] for each in found])
    np.testing.assert_allclose([row["center_x_mm"] for row in rows], [each.center_mm[0] for each in found])


def test_a_scan_unlike_those_of_the_training_is_flagged_or_refused(trained, tmp_path):
    _, run_folder, _, _ = trained
    detector = load_detector(run_folder / "model")
    limits = detector.envelope.limits
    assert set(limits) == {"spacing_in_plane_mm", "spacing_slice_mm", "lung_hu"}
    assert detector.envelope.cases == 3
    assert limits["spacing_slice_mm"].near_upper < 2.4 < limits["spacing_slice_mm"].upper < 3.0  # 2 mm in training

    def scans_of(slice_mm):
        path = write_chest(tmp_path / f"{slice_mm}.nii.gz", [], spacing=(1.5, 1.5, slice_mm))
        return pipeline.find(run_folder / "model", path, out=tmp_path / f"of-{slice_mm}", workers=1, track=False).scans

    near, outside = scans_of(2.4).iloc[0], scans_of(3.0).iloc[0]
    assert (near.status, near.code) == ("flagged", "W_NEAR_ENVELOPE")
    assert near.reason.startswith("spacing_slice_mm is 2.4, accepted ")
    assert (outside.status, outside.code) == ("rejected", "E_OUT_OF_ENVELOPE")
    assert "spacing_slice_mm is 3, accepted" in outside.reason
    table = pd.DataFrame({"image": ["2.4.nii.gz", "3.0.nii.gz"]})
    frame = find_frame(detector, table, root=tmp_path).drop_duplicates("scan_id")  # as the MLflow model does
    assert list(frame.code) == ["W_NEAR_ENVELOPE", "E_OUT_OF_ENVELOPE"]
    assert list(frame.reason) == [near.reason, outside.reason]


def edit(folder, table, change):
    rows = read_rows(folder / table)
    write_rows(folder / table, [change(number, row) for number, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("lesions.csv", lambda _, row: {k: v for k, v in row.items() if k != "solid"}, "no column 'solid'"),
        ("lesions.csv", lambda _, row: {**row, "diameter_mm": ""}, "has no diameter_mm, which a detector learns"),
        ("lesions.csv", lambda _, row: {**row, "solid": "maybe"}, "'maybe' is neither 1 nor 0"),
        ("lesions.csv", lambda _, row: {**row, "ignore": 1}, "split 'train' has no scan with a lesion"),
        ("lesions.csv", lambda _, row: {**row, "center_x_mm": ""}, "not three numbers"),
        ("scans.csv", lambda n, row: {**row, "split": "" if n else "train"}, "7 scans have no split"),
        ("scans.csv", lambda _, row: {**row, "split": "train"}, "split 'validation' has no scan with a lesion"),
        ("scans.csv", lambda n, row: {**row, "patient_id": "p0"}, "in two splits|several splits|split"),
    ],
)
def test_tables_that_cannot_be_used_stop_before_any_scan_is_read(
    trained, tmp_path, monkeypatch, capsys, table, change, says
):
    folder = trained[0]
    for name in ("scans.csv", "lesions.csv", "find.yaml"):
        (tmp_path / name).write_text((folder / name).read_text())
    for scan in folder.glob("*.nii.gz"):
        (tmp_path / scan.name).symlink_to(scan)
    edit(tmp_path, table, change)
    monkeypatch.chdir(tmp_path)
    assert run(["train", "find.yaml"]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_patch_larger_than_a_scan_is_refused(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    assert run(["train", "find.yaml", "grid.patch=64", "output=other"]) == 2
    assert "grid.patch: 64 voxels of 3 mm are more than scan 's0' has" in capsys.readouterr().err


def test_configurations_of_the_two_tasks_are_told_apart(trained, tmp_path, monkeypatch, capsys):
    path = trained[0] / "find.yaml"
    with pytest.raises(ConfigError, match="task: 'detection' trains a detector"):
        load_config(path)
    assert load_detection_config(path).grid.spacing_mm == 3.0
    with pytest.raises(ConfigError, match=r"classes: .* must start with 'nodule'"):
        load_detection_config(path, ["classes=[solid]"])
    with pytest.raises(ConfigError, match="add up to more than 1"):
        load_detection_config(path, ["training.hard_share=0.8"])
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(path), "--folds", "3"]) == 2
    assert "not for task: detection" in capsys.readouterr().err
