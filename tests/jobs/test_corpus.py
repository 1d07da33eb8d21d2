"""The corpus of damaged, odd and equivalent inputs through the whole command: no silent wrong answer.

The corpus is not part of the project; the test takes it from ../shared/bad_scans and is skipped without it.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import tiny_config
from shared_data import SHARED
from tiny_models import write_model, write_scans

from pipeline.cli import run
from pipeline.config.inputs import Limits, Preprocessing
from pipeline.imaging.read import read_image

CORPUS = SHARED / "bad_scans"
CENTER = {"center_x_mm": "-9.75", "center_y_mm": "4.5", "center_z_mm": "6.0", "coordinate_system": "RAS"}
# The slopes of this series grow from 1 to 2.5, slice by slice, over the reference's stored values. Each is applied to
# its own slice, as SimpleITK does (tested below), and then the voxels are other ones: the lesion's cube has a median
# of 650 HU and a 95th centile of 1,600, where no training case of this model has a 95th centile above 64. Reading it
# is legal, which the row says with the expected warning; a number would be an answer about something that no training
# case resembles, so the envelope refuses it. A model that has seen such values scores and flags it.
STRICTER = {"dicom/rescale_varies": "E_OUT_OF_ENVELOPE"}
# The corpus asks for a refusal, because a reader that takes every table for UTF-8 must not guess. A byte-order mark
# says UTF-16 without a guess, as hospitals' spreadsheets write it, so the table is read, and judged like the others.
READ_NOW = {"labels/utf16.csv"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="no ../shared/bad_scans beside the checkout"),
]


def variants(folder, *, patients=96):
    """Noisy copies of the reference, the block bright or dim, so that the reference lies inside the envelope."""
    import nibabel as nib

    reference = nib.load(CORPUS / "nifti" / "ref.nii")
    voxels = np.asarray(reference.dataobj).astype(np.float32)
    block = voxels == 300  # HU of the nodule
    rng = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir(parents=True)
    for number in range(patients):
        bright = number % 2
        looks_bright = bright != (
            number % 5 == 0
        )  # a fifth looks like the other class: no calibrator fits separable logits
        changed = np.where(block & (not looks_bright), -100, voxels) + rng.normal(0, 20, voxels.shape)
        name = f"images/{number:02d}.nii.gz"
        nib.save(nib.Nifti1Image(changed.round().astype(np.int16), reference.affine), folder / name)
        rows.append({"case_id": f"{number:02d}", "patient_id": f"P{number}", "image": name, "label": bright, **CENTER})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Score rows of the corpus's scans, by case, and everything that was printed."""
    folder = tmp_path_factory.mktemp("corpus")
    preprocessing = {"size": [28, 28, 28], "spacing_mm": [0.75, 0.75, 0.75]}
    training = {"max_epochs": 8, "learning_rate": 0.003, "early_stopping": {"patience": 7}}
    manifest = variants(folder / "train")
    config = tiny_config(manifest, folder, preprocessing=preprocessing, training=training)
    config |= {"evaluation": {"resamples": 200}, "network": {"name": "compact", "width": 8}, "augmentation": {}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    assert run(["train", str(folder / "tiny.yaml")]) == 0
    (model,) = folder.glob("runs/*/model")
    cases = [case for case in json.loads((CORPUS / "manifest.json").read_text()) if case["kind"] != "labels"]
    (folder / "scans").mkdir()
    for kind in ("nifti", "dicom"):
        copy_tree(CORPUS / kind, folder / "scans" / kind)
    table = pd.DataFrame([{"case_id": case["id"], "image": case["path"], **CENTER} for case in cases])
    table.to_csv(folder / "scans" / "manifest.csv", index=False)
    assert run(["score", str(model), str(folder / "scans" / "manifest.csv"), "--out", str(folder / "out")]) == 1
    found = pd.read_parquet(folder / "out" / "scores.parquet").set_index("case_id")
    return cases, found, folder


def copy_tree(source, target):
    """Copy files with the permissions of a user who may write."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def test_no_damaged_scan_gets_a_number_and_no_good_one_loses_it(rows):
    cases, found, _ = rows
    for case in cases:
        row = found.loc[case["id"]]
        if case["id"] in STRICTER:
            assert row["code"] == STRICTER[case["id"]]
            continue
        assert pd.isna(row["probability"]) == (case["expect"] == "reject"), (case["id"], row["code"], row["reason"])


def test_codes_are_the_expected_ones(rows):
    cases, found, _ = rows
    wrong = {
        case["id"]: (case["code"], found.loc[case["id"], "code"])
        for case in cases
        if case["expect"] == "reject" and found.loc[case["id"], "code"] != case["code"]
    }
    assert wrong == {}
    for case in cases:
        if case["expect"] == "flag":
            assert case["code"] in found.loc[case["id"], "warnings"].split(";")


def test_varying_rescale_is_read_as_simpleitk_reads_it_and_is_unlike_the_reference():
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(CORPUS / "dicom" / "rescale_varies")))
    theirs = sitk.GetArrayFromImage(reader.Execute())[:, ::-1, ::-1].T  # LPS, slice first -> RAS
    image = read_image(CORPUS / "dicom" / "rescale_varies", limits=Limits(), modality="CT")
    assert np.abs(image.voxels - theirs).max() < 1  # SimpleITK cuts off the fraction
    assert [warning.code for warning in image.warnings] == ["W_RESCALE_VARIES"]
    reference = read_image(CORPUS / "dicom" / "ref", limits=Limits(), modality="CT")
    assert np.percentile(image.voxels - reference.voxels, 95) > 500


def test_every_honest_encoding_has_the_reference_probability(rows):
    cases, found, _ = rows
    reference = found.loc["nifti/ref.nii", "probability"]
    for case in cases:
        if case["expect"] == "same":
            assert abs(found.loc[case["id"], "probability"] - reference) < 1e-5, case["id"]


def test_no_planted_text_reaches_anything_that_was_written(rows):
    _, _, folder = rows
    written = [*(folder / "out").rglob("*"), *(folder / "runs").rglob("*"), folder / "mlflow.db"]
    for path in written:
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path


def test_tables_are_judged_by_check(tmp_path, capsys):
    import nibabel as nib

    shutil.copytree(CORPUS / "labels", tmp_path / "labels")
    for number, path in enumerate(sorted((tmp_path / "labels").rglob("*.nii.gz"))):
        scan = nib.load(path)  # all of them are one image, which could not have both labels
        scan.header["descrip"] = f"of patient {number}".encode()
        nib.save(scan, path)
    for case in json.loads((CORPUS / "manifest.json").read_text()):
        if case["kind"] != "labels":
            continue
        code = run(["check", str(tmp_path / case["path"]), "--json", str(tmp_path / "check.json")])
        answer = (tmp_path / "check.json").read_text()
        refused = case["expect"] == "reject" and case["id"] not in READ_NOW
        assert code == int(refused), (case["id"], capsys.readouterr().out)
        assert case["id"] in READ_NOW or case["code"] in answer, case["id"]


@pytest.mark.parametrize("region", ["lesion", "image"])
def test_with_half_the_inputs_damaged_every_good_scan_is_scored_and_every_bad_one_has_its_code(
    tmp_path, monkeypatch, region
):
    """Damaged scans turn by turn with good ones, over two workers, batches that mix both, and one writer."""
    monkeypatch.chdir(tmp_path)
    spacing = [1.0, 1.0, 1.0] if region == "lesion" else None
    preprocessing = Preprocessing(dimensions=3, region=region, size=(28, 28, 28), spacing_mm=spacing)
    model = write_model(tmp_path / "model", preprocessing=preprocessing)
    copy_tree(CORPUS / "nifti", tmp_path / "scans" / "nifti")
    copy_tree(CORPUS / "dicom", tmp_path / "scans" / "dicom")
    cases = json.loads((CORPUS / "manifest.json").read_text())
    bad = {case["id"]: case["code"] for case in cases if case["kind"] != "labels" and case["expect"] == "reject"}
    good = [f"good/{case.image}" for case in write_scans(tmp_path / "scans" / "good", len(bad))]
    middle = {**CENTER, "center_x_mm": "0", "center_y_mm": "0", "center_z_mm": "0"}
    paths = {case["id"]: case["path"] for case in cases}
    lines = [{"case_id": name, "image": name, **middle} for name in good]
    lines += [{"case_id": name, "image": paths[name], **CENTER} for name in bad]
    half = len(bad)
    mixed = [lines[index] for pair in zip(range(half), range(half, 2 * half), strict=True) for index in pair]
    pd.DataFrame(mixed).to_csv(tmp_path / "scans" / "manifest.csv", index=False)
    line = ["score", str(model), "scans/manifest.csv", "--out", "out", "--workers", "2", "--batch-size", "3"]
    assert run([*line, "--no-track"]) == 1
    found = pd.read_parquet("out/scores.parquet").set_index("case_id")
    assert list(found.index) == [line["case_id"] for line in mixed]
    assert set(found.loc[good, "status"]) == {"scored"}
    assert found.loc[good, "probability"].between(0, 1).all()
    assert dict(found.loc[list(bad), "code"]) == bad
    assert found.loc[list(bad), ["probability", "decision", "logit"]].isna().all(axis=None)
    print(
        f"{region}: {len(good)} of {len(good)} good scans scored, {len(bad)} of {len(bad)} damaged ones with their code"
    )
