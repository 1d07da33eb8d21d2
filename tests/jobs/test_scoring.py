"""``malignancy score`` as an engineer meets it at night: interrupted, resumed, watched, on URLs and on Ray."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_models import write_manifest, write_model, write_scans

from pipeline.cli import run
from pipeline.scoring import sink
from pipeline.scoring.drift import fit_references, references_to_json
from pipeline.scoring.engines.local import score_in_processes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_scans(tmp_path / "scans", 12)
    return write_manifest(tmp_path / "scans")


def score(model, source, out="out", *options):
    return run(["score", model, str(source), "--out", str(out), "--workers", "2", "--no-track", *options])


def table(out="out"):
    return pd.read_parquet(f"{out}/scores.parquet")


def summary(out="out"):
    with open(f"{out}/summary.json") as handle:
        return json.load(handle)


def test_a_second_run_scores_nothing_again_and_a_new_scan_is_added(model, manifest, monkeypatch):
    assert score(model, manifest.parent / "0000.nii.gz") == 1  # a lesion model is not told where the lesion is
    assert score(model, manifest, "two") == 0
    before = table("two")
    with monkeypatch.context() as patch:
        patch.delattr("pipeline.workflow.scoring_run.score_in_processes")  # nor is a worker started for nothing
        assert score(model, manifest, "two") == 0
    assert summary("two")["scored_by_this_run"] == 0
    pd.testing.assert_frame_equal(table("two"), before)
    shutil.copy(manifest.parent / "0003.nii.gz", manifest.parent / "0099.nii.gz")
    write_manifest(manifest.parent)
    assert score(model, manifest, "two") == 0
    assert summary("two")["scored_by_this_run"] == 1
    assert list(table("two")["case_id"]) == [*before["case_id"], "0099.nii.gz"]


def test_a_changed_input_is_refused_or_scored_again(model, manifest, capsys):
    assert score(model, manifest) == 0
    before = table().set_index("case_id")
    shutil.copy(manifest.parent / "0003.nii.gz", manifest.parent / "0005.nii.gz")
    assert score(model, manifest) == 2
    assert "1 inputs have changed since they were scored (first: 0005.nii.gz)" in capsys.readouterr().err
    assert score(model, manifest, "out", "--rescore-changed") == 0
    after = table().set_index("case_id")
    assert len(after) == 12
    assert after.loc["0005.nii.gz", "probability"] == after.loc["0003.nii.gz", "probability"]
    others = [name for name in before.index if name != "0005.nii.gz"]
    pd.testing.assert_frame_equal(after.loc[others], before.loc[others])


def edit(manifest, change):
    manifest.write_text(change(manifest.read_text()))


def test_a_corrected_table_never_keeps_the_other_scans_probability(model, manifest, capsys):
    """Two scans of one size and time differ by nothing but their names."""
    for number in range(12):
        image = nib.load(manifest.parent / f"{number:04d}.nii.gz")
        nib.save(image, manifest.parent / f"{number:04d}.nii")
        os.utime(manifest.parent / f"{number:04d}.nii", (1e9, 1e9))
    edit(manifest, lambda text: text.replace("nii.gz,0,0,0", "nii,0,0,0"))
    assert score(model, manifest) == 0
    before = table().set_index("case_id")["probability"]
    swap = {"0003.nii,": "0004.nii,", "0004.nii,": "0003.nii,"}
    edit(manifest, lambda text: re.sub("|".join(swap), lambda match: swap[match[0]], text))
    assert score(model, manifest) == 2
    assert "2 inputs have changed since they were scored (first: 0003.nii.gz)" in capsys.readouterr().err
    assert score(model, manifest, "out", "--rescore-changed") == 0
    after = table().set_index("case_id")["probability"]
    assert after["0003.nii.gz"] == before["0004.nii.gz"] != before["0003.nii.gz"]
    edit(manifest, lambda text: text.replace(",0007.nii,", ",./0007.nii,"))  # the same scan, spelt otherwise
    assert score(model, manifest) == 0
    assert summary()["scored_by_this_run"] == 0


def test_a_corrected_patient_is_noticed(model, manifest, capsys):
    edit(manifest, lambda text: re.sub("(?m)$", ",p1", text.rstrip()).replace(",p1", ",patient_id", 1) + "\n")
    assert score(model, manifest) == 0
    edit(manifest, lambda text: text.replace("RAS,p1", "RAS,p2", 1))
    assert score(model, manifest) == 2
    assert "1 inputs have changed since they were scored (first: 0000.nii.gz)" in capsys.readouterr().err
    assert score(model, manifest, "out", "--rescore-changed") == 0
    assert list(table()["patient_id"]).count("p2") == 1


def test_an_output_whose_scans_moved_behind_a_link_is_continued(model, manifest, tmp_path):
    (tmp_path / "current").symlink_to(manifest.parent)
    assert score(model, tmp_path / "current" / "manifest.csv") == 0
    manifest.parent.rename(tmp_path / "moved")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "moved")
    assert score(model, tmp_path / "current" / "manifest.csv") == 0
    assert summary()["scored_by_this_run"] == 0


def test_a_folder_that_scoring_did_not_make_is_refused_before_anything_is_scored(model, manifest, tmp_path, capsys):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "inventory.csv").write_text("x")
    (tmp_path / "out" / ".editor.tmp").write_text("x")
    assert score(model, manifest) == 2
    says = "--out out: holds .editor.tmp and no parts/run.json, so scoring did not make it; name a new folder"
    assert capsys.readouterr().err == f"malignancy: {says}\n"
    kept = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kept == {".editor.tmp", "parts/inventory.csv"}


def test_rows_are_their_owners_alone(model, manifest, tmp_path):
    before = os.umask(0o022)
    try:
        assert score(model, manifest, "new/out") == 0
        (tmp_path / "there").mkdir()
        assert score(model, manifest, "there") == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    folders = [path for path in (tmp_path / "new").rglob("*") if path.is_dir()]
    assert {f"{path.stat().st_mode & 0o777:o}" for path in files} == {"600"}
    assert {f"{path.stat().st_mode & 0o777:o}" for path in (tmp_path / "new", *folders)} == {"700"}
    assert f"{(tmp_path / 'there').stat().st_mode & 0o777:o}" == "755"  # a folder of the user's is left as it is


def test_another_model_is_refused_and_restart_sets_the_rows_aside(model, manifest, tmp_path, capsys):
    assert score(model, manifest) == 0
    other = str(write_model(tmp_path / "other", seed=1))
    assert score(other, manifest) == 2
    assert "holds rows of another model" in capsys.readouterr().err
    assert score(other, manifest, "out", "--restart") == 0
    assert set(table()["model"]) == {summary()["model"]}
    assert len(list((tmp_path / "out").glob("parts-before-*"))) == 1


def test_rejects_may_be_accepted_and_a_bad_night_is_stopped(model, manifest, capsys):
    (manifest.parent / "0002.nii.gz").write_bytes(b"")
    assert score(model, manifest) == 1
    assert score(model, manifest, "out", "--accept-rejects", "0.1") == 0
    lines = ["case_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system"]
    lines += [f"gone-{number},gone-{number}.nii.gz,0,0,0,RAS" for number in range(300)]
    (manifest.parent / "gone.csv").write_text("\n".join(lines) + "\n")
    assert score(model, manifest.parent / "gone.csv", "gone", "--max-failure-rate", "0.2") == 3
    assert "50 of 50 cases were not scored, above --max-failure-rate 0.2 (last: E_NOT_FOUND)" in capsys.readouterr().err


def test_scans_that_are_still_arriving_are_left_for_the_next_run(model, manifest):
    for number in range(10):
        os.utime(manifest.parent / f"{number:04d}.nii.gz", (1e9, 1e9))
    assert score(model, manifest, "out", "--min-age", "3600") == 0
    assert (len(table()), summary()["waiting_for_arrival"]) == (10, 2)
    assert score(model, manifest) == 0
    assert len(table()) == 12


def test_a_case_that_left_the_manifest_leaves_the_table_and_is_counted(model, manifest, capsys):
    assert score(model, manifest) == 0
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line for line in lines if "0004" not in line) + "\n")
    assert score(model, manifest) == 0
    assert len(table()) == 11
    assert "0004.nii.gz" not in set(table()["case_id"])
    assert summary()["no_longer_in_input"] == 1
    assert "1 cases of an earlier run are no longer in the input: left out of the table" in capsys.readouterr().out


def test_a_rejected_scan_that_was_mended_is_scored_without_being_asked_for(model, manifest):
    whole = (manifest.parent / "0002.nii.gz").read_bytes()
    (manifest.parent / "0002.nii.gz").write_bytes(whole[:100])
    assert score(model, manifest) == 1
    (manifest.parent / "0002.nii.gz").write_bytes(whole)
    assert score(model, manifest) == 0
    assert summary()["scored_by_this_run"] == 1


def test_a_scan_that_ran_out_of_time_is_tried_again(model, manifest, monkeypatch):
    def out_of_time(setup, cases, identity, **options):
        """Every scan is read but one, which does not answer."""
        for row in score_in_processes(setup, cases, identity, **options):
            slow = row.case_id == "0003.nii.gz"
            lost = {"status": "rejected", "code": "E_TIMEOUT", "probability": None, "decision": None, "logit": None}
            yield replace(row, **lost) if slow else row

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.workflow.scoring_run.score_in_processes", out_of_time)
        assert score(model, manifest) == 1
    assert table().set_index("case_id")["code"].to_dict()["0003.nii.gz"] == "E_TIMEOUT"
    assert score(model, manifest) == 0
    assert set(table()["code"]) == {""}
    assert summary()["scored_by_this_run"] == 1


@pytest.mark.parametrize("name", ["run.json", "000001.json"])
def test_damaged_records_are_one_line(model, manifest, capsys, name):
    assert score(model, manifest) == 0
    with open(f"out/parts/{name}", "w") as handle:
        handle.write("{")
    assert score(model, manifest) == 2
    assert f"{name}: is not what was committed; restore it, or score again with --restart" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{}", "7", '[["a"]]', "NaN", '"abc"', "{"])
def test_a_record_of_superseded_lesions_that_is_none_is_one_line(model, manifest, capsys, text):
    assert score(model, manifest.parent) == 1
    with open("out/superseded.json", "w") as handle:
        handle.write(text)
    assert score(model, manifest.parent) == 2
    assert "superseded.json: is not what was written; restore it" in capsys.readouterr().err


def test_places_that_cannot_be_written_and_names_that_are_empty_are_one_line(model, manifest, capsys):
    assert score(model, manifest, "scans/manifest.csv/x") == 2
    assert score(model, manifest, "x" * 300) == 2
    assert score(f"{model},", manifest) == 2
    assert score(model, manifest, "scans/0000.nii.gz") == 2
    assert score(model, manifest, str(model)) == 2
    (manifest.parent / "link").symlink_to("nowhere")
    assert score(model, manifest, "scans/link") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 6
    assert "--out scans/link: is not a folder" in errors[5]
    assert "has an empty name" in errors[2]
    assert "--out scans/0000.nii.gz: is not a folder" in errors[3]
    assert f"--out {model}: is a model directory" in errors[4]


def test_a_full_disk_is_one_line_and_keeps_what_was_committed(model, manifest, capsys, monkeypatch):
    write, parts = sink.pq.write_table, []

    def fill_up(*arguments):
        if len(parts) == 2:
            raise OSError(errno.ENOSPC, "Error writing bytes to file")  # as Arrow says it, without a file name
        parts.append(arguments)
        write(*arguments)

    monkeypatch.setattr(sink, "_PART_ROWS", 4)
    with monkeypatch.context() as patch:
        patch.setattr(sink.pq, "write_table", fill_up)
        assert score(model, manifest) == 3
    assert capsys.readouterr().err == (
        "malignancy: out: the disk is full; rows committed before are kept: "
        "free some space and run the same command again\n"
    )
    assert score(model, manifest) == 0
    assert (len(table()), summary()["scored_by_this_run"]) == (12, 4)


def test_ctrl_c_ends_with_one_line_and_keeps_what_was_scored(model, manifest, capsys, monkeypatch):
    append = sink.Sink.append

    def interrupted(self, row):
        append(self, row)
        if row.case_id.startswith("0004"):
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background of a shell
    with monkeypatch.context() as patch:
        patch.setattr(sink.Sink, "append", interrupted)
        assert score(model, manifest) == 3
    assert capsys.readouterr().err == "malignancy: interrupted; what was finished before is kept\n"
    assert score(model, manifest) == 0
    assert (len(table()), summary()["scored_by_this_run"]) == (12, 7)


def test_odd_image_names_are_rejected_rows(model, manifest):
    with open(manifest, "a") as handle:
        handle.write(f"long,{'x' * 5000}.nii.gz,0,0,0,RAS\nurl,https://host/x.nii.gz,0,0,0,RAS\n")
    assert score(model, manifest) == 1
    codes = table().set_index("case_id")["code"]
    assert (codes["long"], codes["url"]) == ("E_NOT_FOUND", "E_OUTSIDE_ROOT")


@pytest.mark.parametrize("name", ["golden.json", "0.nii.gz"])
def test_damaged_golden_scans_are_one_line_and_the_models_fault(model, manifest, tmp_path, capsys, name):
    folder = write_model(tmp_path / "damaged", seed=3)
    (folder / "golden" / name).unlink()
    os.mkfifo(folder / "golden" / name)
    assert score(str(folder), manifest) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"malignancy: {folder}/golden/{name}: ")
    assert "copy the model directory again" in error
    assert len(error.splitlines()) == 1
    assert score(model, manifest) == 0  # another model: no row was written, so the folder is free


def test_drift_is_an_alert_in_the_summary(model, manifest, tmp_path):
    folder = tmp_path / "with-reference"
    shutil.copytree(model, folder)
    description = json.loads((folder / "model.json").read_text())
    values = np.linspace(-1000, -990, 60).tolist()
    references = fit_references({"intensity_q50": values}, [str(each) for each in values])
    description["drift_reference"] = references_to_json(references) | {"probability": [[0.5], [0.5, 0.5]]}
    (folder / "model.json").write_text(json.dumps(description))
    write_scans(manifest.parent, 120)
    assert score(str(folder), write_manifest(manifest.parent)) == 0
    found = summary()
    assert found["drift_alerts"] == ["intensity_q50"]
    assert found["drift"]["intensity_q50"] > 0.25
    test = found["drift_tests"]["intensity_q50"]
    assert 0.1 < test["effect"] < test["index"]
    assert (test["cases"], test["patients"], test["alert"]) == (120, 120, True)
    assert test["p_value"] == test["p_adjusted"] < 0.001
    assert found["drift_untested"] == {"probability": "1 patients in the reference; expected at least 10"}
    (sentence,) = found["drift_sentences"]
    assert sentence.startswith("the mix of cases has changed: intensity_q50 (index ")
    assert f"  drift: {sentence}" in (tmp_path / "out" / "summary.txt").read_text()
    assert "120 cases name no patient, and each counts as another" in (tmp_path / "out" / "summary.txt").read_text()
    assert score(str(folder), manifest, "calm", "--drift-alert", "50") == 0
    assert (summary("calm")["drift_alerts"], summary("calm")["drift_sentences"]) == ([], [])


def test_drift_counts_patients_where_the_table_names_them(model, manifest, tmp_path):
    folder = tmp_path / "with-reference"
    shutil.copytree(model, folder)
    description = json.loads((folder / "model.json").read_text())
    values = np.linspace(-1000, -990, 60).tolist()
    references = fit_references({"intensity_q50": values}, [str(each) for each in values])
    description["drift_reference"] = references_to_json(references)
    (folder / "model.json").write_text(json.dumps(description))
    write_scans(manifest.parent, 100)
    table_of = pd.read_csv(write_manifest(manifest.parent))
    table_of["patient_id"] = [f"patient {number // 4}" for number in range(100)]
    table_of.to_csv(manifest, index=False)
    assert score(str(folder), manifest) == 0
    assert summary()["drift_tests"]["intensity_q50"]["patients"] == 25
    assert summary()["drift_unknown_patients"] == 0
    assert "name no patient" not in (tmp_path / "out" / "summary.txt").read_text()


def test_a_scoring_run_is_in_the_tracking_store_without_a_case_or_path(model, manifest, tmp_path):
    from mlflow import MlflowClient

    out = ["--out", "out", "--workers", "1"]
    assert run(["score", model, str(manifest), *out]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    logged = client.get_run(summary()["mlflow_run"])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["cases"] == 12
    assert logged.data.tags["kind"] == "scoring"
    assert "0003.nii.gz" not in str(logged.to_dictionary())
    assert str(tmp_path) not in str(logged.data.to_dictionary())


def command(model, manifest, out, *options):
    """The command in a process of its own, with the environment as it is now."""
    return [sys.executable, "-m", "pipeline", "score", model, str(manifest), "--out", out, "--no-track", *options]


def assert_same_rows(found, expected):
    """Equal but for clocks, and for the last bits that the make-up of a batch decides."""
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-5)
    drop = ["seconds", "scored_at", "probability", "logit"]
    pd.testing.assert_frame_equal(found.drop(columns=drop), expected.drop(columns=drop))


@pytest.mark.slow
def test_ray_gives_the_same_rows(model, manifest):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    (manifest.parent / "0002.nii.gz").write_bytes(b"")
    assert score(model, manifest, "local") == 1
    assert score(model, manifest, "ray", "--engine", "ray") == 1
    assert_same_rows(table("ray"), table("local"))


@pytest.fixture
def bucket(manifest, monkeypatch):
    """The scans in an S3 bucket of a server on this machine."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="the extra [s3] is not installed")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}")
    system.mkdir("bucket")
    system.put(str(manifest.parent) + "/", "bucket/scans/", recursive=True)
    yield "s3://bucket/scans"
    server.stop()


@pytest.mark.slow
def test_a_bucket_is_scored_like_a_folder(model, manifest, bucket, capsys):
    assert score(model, manifest, "local") == 0
    # A process of its own: workers inherit the environment that the first scoring in this process had.
    done = subprocess.run(command(model, f"{bucket}/manifest.csv", "remote"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_series_equal(table("remote")["probability"], table("local")["probability"])
    assert list(table("remote")["image_sha256"]) == list(table("local")["image_sha256"])
    assert score(model, f"{bucket}/manifest.csv", "remote") == 0
    assert summary("remote")["scored_by_this_run"] == 0
    assert subprocess.run(command(model, bucket, "searched"), capture_output=True).returncode == 1
    assert set(table("searched")["code"]) == {"E_CENTER_MISSING"}
    assert summary("searched")["skipped_files"] == {".csv": 1}
    assert score(model, "s3://bucket/nowhere", "none") == 2
    assert "no such manifest, folder or scan" in capsys.readouterr().err
