"""``malignancy lesions``, and ``--lesions`` of check and score: from annotations to rows."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from lesion_files import (
    AXIAL,
    OBLIQUE,
    ellipsoid,
    second_ellipsoid,
    write_mask,
    write_rows,
    write_scan,
    write_segmentation,
)
from tiny_models import PREPROCESSING, write_model, write_scans

from pipeline.cases.manifest import read_manifest
from pipeline.cli import run
from pipeline.files import sha256_bytes

SECOND = second_ellipsoid()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two patients with a series each, their manifest, and a segmentation with two lesions of the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    scans = [write_scan(tmp_path / "data" / f"P{number}" / "CT", d) for number, d in ((1, AXIAL), (2, OBLIQUE))]
    header = ("case_id", "patient_id", "image", "label", "site")
    write_rows(
        tmp_path / "data" / "manifest.csv", header, ["a", "P1", "P1/CT", 0, "north"], ["b", "P2", "P2/CT", 1, "süd"]
    )
    write_segmentation(scans[1], tmp_path / "annotations" / "seg.dcm", [ellipsoid(), SECOND])
    return tmp_path, scans


def centers(path, column="case_id"):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {row[column]: tuple(float(row[f"center_{axis}_mm"]) for axis in "xyz") for _, row in table.iterrows()}


def true_center(scan, mask):
    return tuple(np.round(scan.affine[:3] @ [*np.argwhere(mask).mean(0), 1], 3))


def test_a_manifest_with_a_row_a_lesion_and_what_did_not_match(data, capsys):
    folder, scans = data
    assert run(["lesions", "annotations", "--for", "data/manifest.csv"]) == 1  # a has no lesion
    out = folder / "data" / "manifest-lesions.csv"
    assert centers(out) == {"b#1": true_center(scans[1], ellipsoid()), "b#2": true_center(scans[1], SECOND)}
    table = pd.read_csv(out, dtype=str)
    assert list(table.columns) == [
        "case_id", "patient_id", "image", "label", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system",
        "diameter_mm", "lesion_source", "site",
    ]  # fmt: skip
    assert set(table.coordinate_system) == {"RAS"}
    assert list(table.lesion_source) == ["seg.dcm (1)", "seg.dcm (2)"]
    assert list(table.site) == ["süd", "süd"]
    text = capsys.readouterr().out
    assert "dicom-seg: 2 lesions in 1 file" in text
    assert "1 image without a lesion:\n  a" in text
    assert "2 lesions have the label of their row, which has several (1 row)" in text
    assert "manifest-lesions.csv: 2 lesions of 1 image, one row each; 1 image without one left out" in text
    assert "CANARY" not in text
    manifest = read_manifest(out)
    assert [case.label for case in manifest.cases] == [1, 1]
    assert not [fault for fault in manifest.faults if "ONE_CLASS" not in fault.code]


def test_nothing_is_overwritten_and_nothing_is_written_for_nothing(data, capsys):
    folder, _ = data
    arguments = ["lesions", "annotations", "--for", "data/manifest.csv", "--out", "data/new.csv"]
    assert run(arguments) == 1
    before = (folder / "data" / "new.csv").read_bytes()
    assert run(arguments) == 2
    assert "data/new.csv: exists already and is not overwritten" in capsys.readouterr().err
    assert (folder / "data" / "new.csv").read_bytes() == before
    (folder / "nothing").mkdir()
    assert run(["lesions", "nothing", "--for", "data/manifest.csv"]) == 2
    error = capsys.readouterr()
    assert "none of its images has a lesion in the sources" in error.err
    assert "no annotation found among 0 other files" in error.out
    assert not (folder / "data" / "manifest-lesions.csv").exists()


def test_the_new_manifest_may_lie_in_a_folder_above_the_scans(data, capsys):
    folder, _ = data
    assert run(["lesions", "annotations", "--for", "data/manifest.csv", "--out", "up.csv"]) == 1
    assert list(pd.read_csv("up.csv").image) == ["data/P2/CT"] * 2
    (folder / "elsewhere").mkdir()
    assert run(["lesions", "annotations", "--for", "data/manifest.csv", "--out", "elsewhere/x.csv"]) == 2
    assert "images lie under their manifest's folder" in capsys.readouterr().err
    assert run(["lesions", "annotations", "--for", "data/manifest.csv", "--out", "none/x.csv"]) == 2
    assert run(["lesions", "annotations", "--for", "data/manifest.csv", "--out", "x.txt"]) == 2


def test_a_folder_and_a_single_scan_get_a_manifest_too(data, capsys):
    folder, scans = data
    shutil.copy("annotations/seg.dcm", "data/P2/seg.dcm")
    assert run(["lesions", "data", "--for", "data/P2"]) == 0
    code = sha256_bytes(scans[1].series.encode())[:8]
    assert list(pd.read_csv("data/P2/lesions.csv").image) == [f"CT#{code}"] * 2
    assert run(["check", "data/P2/lesions.csv"]) == 1  # it has no label yet
    assert "2 cases: 2 ok" in capsys.readouterr().out
    write_mask(scans[0], folder / "one" / "x.nii.gz", (scans[0].mask * 800 - 700).astype(np.int16))
    write_mask(scans[0], folder / "mask.nii.gz")
    assert run(["lesions", "mask.nii.gz", "--for", "one/x.nii.gz"]) == 0
    (found,) = centers("one/x-lesions.csv", "image").items()
    assert found == ("x.nii.gz", true_center(scans[0], ellipsoid()))
    assert [case.path.is_file() for case in read_manifest(folder / "one" / "x-lesions.csv").cases] == [True]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.csv", "--for", "data/manifest.csv"], "none.csv: no such file"),
        (["annotations", "--for", "none.csv"], "none.csv: E_NOT_FOUND"),
        (["annotations", "--for", "s3://b/m.csv"], "is a URL"),
        (["annotations"], "Missing option"),
        (["annotations", "--for", "data/manifest.csv", "--only", "1,x"], "--only '1,x': expected numbers"),
        (["annotations", "--for", "data/manifest.csv", "--system", "LAS"], "--system 'LAS': expected RAS"),
        (["annotations", "--for", "data/manifest.csv", "--index-base", "2"], "index-base"),
        (["annotations", "--for", "data/manifest.csv", "--labels", "x"], "labels"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(data, capsys, arguments, says):
    assert run(["lesions", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_options_of_the_command_reach_the_readers(data, capsys):
    folder, scans = data
    labels = np.zeros_like(scans[0].mask, np.uint8)
    labels[5:40, 5:40, 3:20], labels[ellipsoid()], labels[SECOND] = 1, 2, 2  # an organ and two lesions in it
    write_mask(scans[0], folder / "data" / "P1" / "CT_mask.nii.gz", labels)
    base = ["lesions", "data/P1", "--for", "data/manifest.csv"]
    assert run([*base, "--only", "2", "--out", "data/two.csv"]) == 1
    assert set(centers("data/two.csv").values()) == {true_center(scans[0], m) for m in (ellipsoid(), SECOND)}
    assert run([*base, "--out", "data/values.csv"]) == 1
    assert list(centers("data/values.csv")) == ["a#1", "a#2"]
    write_rows(folder / "v.csv", ("case_id", "i", "j", "k"), ["b", 31, 18, 15])
    assert run(["lesions", "v.csv", "--for", "data/manifest.csv", "--index-base", "1", "--out", "data/v1.csv"]) == 1
    assert centers("data/v1.csv") == {"b": true_center(scans[1], ellipsoid())}
    x, y, z = scans[1].lps([30, 17, 14])[0]
    write_rows(folder / "t.csv", ("case_id", "x", "y", "z"), ["b", x, y, z])
    assert run(["lesions", "t.csv", "--for", "data/manifest.csv", "--system", "lps", "--out", "data/t1.csv"]) == 1
    assert centers("data/t1.csv") == centers("data/v1.csv")
    assert run(["lesions", "t.csv", "--for", "data/manifest.csv", "--system", "RAS", "--out", "data/t2.csv"]) == 1
    assert "the only lesion centre lies in their image only after x and y change sign" in capsys.readouterr().out


def test_other_centres_are_only_replaced_when_that_is_asked_for(data, capsys):
    folder, scans = data
    header = ("case_id", "image", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system", "label")
    write_rows(folder / "data" / "old.csv", header, ["b", "P2/CT", 1, 2, 3, "RAS", 1])
    write_segmentation(scans[1], folder / "one.dcm")
    assert run(["lesions", "one.dcm", "--for", "data/old.csv"]) == 2
    assert "--replace" in capsys.readouterr().err
    assert run(["lesions", "one.dcm", "--for", "data/old.csv", "--replace"]) == 0
    assert centers("data/old-lesions.csv") == {"b": true_center(scans[1], ellipsoid())}


def test_a_label_that_would_be_lost_is_refused(data, capsys):
    write_rows(data[0] / "data" / "bad.csv", ("image", "label"), ["P2/CT", "maybe"])
    assert run(["lesions", "annotations", "--for", "data/bad.csv"]) == 2
    assert "E_LABEL_VALUE" in capsys.readouterr().err


def test_check_takes_the_centres_and_says_what_is_missing(data, model, capsys):
    assert run(["check", "data/manifest.csv", "--lesions", "annotations", "--model", model, "--json", "c.json"]) == 1
    text = capsys.readouterr().out
    assert "a  rejected  E_CENTER_MISSING" in text
    assert "1 image without a lesion:" in text
    assert "3 cases: 2 ok, 0 flagged, 1 rejected" in text
    found = json.loads((data[0] / "c.json").read_text())
    assert [case["case_id"] for case in found["cases"]] == ["a", "b#1", "b#2"]


def test_check_says_the_sign_trap_in_one_line_with_the_remedy(data, capsys):
    folder, scans = data
    header = (
        "case_id",
        "image",
        "center_x_mm",
        "center_y_mm",
        "center_z_mm",
        "coordinate_system",
        "label",
        "patient_id",
    )
    rows = [
        [name, f"{name}/CT", *scan.lps([30, 17, 14])[0], "RAS", number, name]
        for number, (name, scan) in enumerate(zip(("P1", "P2"), scans, strict=True))
    ]
    write_rows(folder / "data" / "t.csv", header, *rows)
    assert run(["check", "data/t.csv"]) == 1
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if "E_ROI_OUTSIDE" in line]
    assert "2 of 2 lesion centres lie in their image only after x and y change sign" in line
    assert "change RAS to LPS" in line
    rows = [[*row[:5], "LPS", *row[6:]] for row in rows]
    write_rows(folder / "data" / "t.csv", header, *rows)
    assert run(["check", "data/t.csv"]) == 0
    assert "change sign" not in capsys.readouterr().out


def score(model, source, out, *options):
    return run(["score", model, str(source), "--out", str(out), "--workers", "1", "--no-track", *options])


def rows(out):
    return pd.read_parquet(f"{out}/scores.parquet").set_index("case_id")


def test_score_takes_the_centres_and_the_written_manifest_scores_the_same(data, model, capsys):
    assert score(model, "data/manifest.csv", "out", "--lesions", "annotations") == 1
    found = rows("out")
    assert list(found.index) == ["a", "b#1", "b#2"]
    assert list(found.code) == ["E_CENTER_MISSING", "", ""]
    assert "dicom-seg: 2 lesions in 1 file" in capsys.readouterr().err
    run(["lesions", "annotations", "--for", "data/manifest.csv"])
    assert score(model, "data/manifest-lesions.csv", "again") == 0
    again = rows("again")
    assert (again.probability == found.probability.loc[again.index]).all()
    assert found.probability["b#1"] != found.probability["b#2"]


def test_a_second_run_scores_nothing_and_a_changed_annotation_is_noticed(data, model, capsys, monkeypatch):
    folder, scans = data
    assert score(model, "data/manifest.csv", "out", "--lesions", "annotations") == 1
    with monkeypatch.context() as patch:
        patch.delattr("pipeline.workflow.scoring_run.score_in_processes")
        assert score(model, "data/manifest.csv", "out", "--lesions", "annotations") == 1
    before = rows("out")
    write_segmentation(scans[1], folder / "annotations" / "seg.dcm", [ellipsoid((29, 17, 14)), SECOND])
    capsys.readouterr()
    assert score(model, "data/manifest.csv", "out", "--lesions", "annotations") == 2
    assert "1 inputs have changed since they were scored (first: b#1)" in capsys.readouterr().err
    assert score(model, "data/manifest.csv", "out", "--lesions", "annotations", "--rescore-changed") == 1
    after = rows("out")
    assert after.probability["b#1"] != before.probability["b#1"]
    assert after.probability["b#2"] == before.probability["b#2"]


def test_in_a_folder_each_lesion_is_scored_once_also_when_one_is_added(data, model):
    folder, scans = data
    shutil.copy("annotations/seg.dcm", "data/P2/seg.dcm")
    write_mask(scans[0], folder / "data" / "n.nii.gz", (scans[0].mask * 800 - 700).astype(np.int16))
    write_mask(scans[0], folder / "data" / "n_mask.nii.gz")
    assert score(model, "data", "out", "--lesions", "data") == 1
    found = rows("out")
    series = sorted(name.partition("#")[0] for name in found.index if "#" in name)
    assert series == ["P1/CT", "P2/CT", "P2/CT"]  # neither the mask nor the segmentation is a scan
    assert found.code["n.nii.gz"] == ""
    labels = scans[0].mask.astype(np.uint8)
    labels[SECOND] = 1
    write_mask(scans[0], folder / "data" / "n_mask.nii.gz", labels)
    assert score(model, "data", "out", "--lesions", "data") == 1
    assert {name for name in rows("out").index if name.startswith("n.")} == {"n.nii.gz#1", "n.nii.gz#2"}
    shutil.move("data/n.nii.gz", "scored.nii.gz")  # a scan that was moved away keeps its rows
    assert score(model, "data", "out", "--lesions", "data") == 1
    assert {name for name in rows("out").index if name.startswith("n.")} == {"n.nii.gz#1", "n.nii.gz#2"}


def test_a_refused_annotation_is_the_row_of_its_image(data, model):
    folder, scans = data
    shifted = scans[0].affine.copy()
    shifted[:3, 3] += 5
    write_mask(scans[0], folder / "data" / "P1" / "CT_mask.nii.gz", affine=shifted)
    assert score(model, "data/manifest.csv", "out", "--lesions", "annotations", "--lesions", "data") == 1
    found = rows("out")
    assert found.code["a"] == "E_AFFINE_DISAGREE"
    assert found.reason["a"].startswith("P1/CT_mask.nii.gz (1): the mask's grid lies up to 8.66 mm")
    assert list(found.index) == ["a", "b#1", "b#2"]


def test_a_model_of_whole_images_has_no_use_for_lesions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = PREPROCESSING.model_copy(update={"region": "image"})
    write_model(tmp_path / "whole", preprocessing=whole)
    write_scans(tmp_path / "scans", 1)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    assert score("whole", "scans", "out", "--lesions", "m.nii.gz") == 2
    assert run(["check", "scans", "--model", "whole", "--lesions", "m.nii.gz"]) == 2
    assert capsys.readouterr().err.count("takes whole images and needs no lesion centres") == 2
