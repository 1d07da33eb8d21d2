"""``malignancy find`` and ``score --find``: one row a scan, whatever happens, and the same numbers either way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from chest_scans import write_chest
from dicom_writing import write_series
from small_detectors import save_small_detector
from tiny_models import write_model

import pipeline
from pipeline.cli.command_line import run
from pipeline.errors import CaseError, UsageError
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.scoring.finding.golden_detector import add_golden_scans
from pipeline.scoring.model_description import read_description

SCANS = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Scans with a manifest beside them, a classifier, and a detector whose scan probability was fitted with it."""
    folder = tmp_path_factory.mktemp("find")
    (folder / "scans" / "images").mkdir(parents=True)
    lines = ["case_id,image,patient_id,ward"]
    for number in range(SCANS):
        write_chest(folder / "scans" / "images" / f"{number}.nii.gz", [((20.0, 10.0 * number, 5.0), 8.0)], seed=number)
        lines.append(f"ct-{number},images/{number}.nii.gz,00{number},north")
    write_chest(folder / "scans" / "images" / "few.nii.gz", [], spacing=(1.5, 1.5, 30.0))
    lines.append("few,images/few.nii.gz,009,south")
    (folder / "scans" / "scans.csv").write_text("\n".join(lines) + "\n")
    write_model(folder / "classifier")
    digest = read_description(folder / "classifier").digests.model
    fitted = ScanProbability(leak=0.05, weight=0.9, classifier_digest=digest)
    save_small_detector(folder / "detector", scan_probability=fitted)
    add_golden_scans(folder / "detector")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def found(work):
    return pipeline.find("detector", "scans/scans.csv", out="found", workers=2, track=False)


@pytest.fixture(scope="module")
def both(work):
    return pipeline.score("classifier", "scans/scans.csv", out="both", find="detector", workers=1, track=False)


def table(folder, name, *, without=("scored_at", "seconds")):
    return pd.read_parquet(folder / f"{name}.parquet").drop(columns=list(without), errors="ignore")


def test_each_scan_has_one_row_and_one_that_cannot_be_searched_has_a_code(found):
    scans = found.scans.set_index("scan_id")
    assert list(scans.index) == [*(f"ct-{number}" for number in range(SCANS)), "few"]
    assert list(scans.status) == ["scored"] * SCANS + ["rejected"]
    assert scans.code["few"] == "E_SHAPE"
    assert "5 voxels, expected at least 10 slices" in scans.reason["few"]
    assert list(scans.candidates[:SCANS]) == [5] * SCANS
    assert np.isnan(scans.candidates["few"])  # nobody looked
    assert scans.probability.isna().all()
    assert found.summary["rejected"] == 1
    assert found.summary["candidates"] == 5 * SCANS


def test_candidates_are_a_manifest_with_everything_known_of_them(found):
    candidates = found.candidates
    assert list(candidates.case_id[:6]) == [f"ct-0#{number}" for number in range(1, 6)] + ["ct-1#1"]
    assert set(candidates.coordinate_system) == {"RAS"}
    assert list(candidates.patient_id.unique()) == [f"00{number}" for number in range(SCANS)]
    assert set(candidates.ward) == {"north"}
    probabilities = candidates[["probability_nodule", "probability_solid", "probability_calcified"]].to_numpy()
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert (candidates.groupby("scan_id").probability_nodule.diff().dropna() <= 0).all()
    text = pd.read_csv(found.folder / "candidates.csv", dtype=str)
    assert list(text.columns) == list(candidates.columns)
    np.testing.assert_array_equal(text.center_x_mm.astype(float), candidates.center_x_mm)


@pytest.mark.parametrize("name", ["candidates.parquet", "candidates.csv"])
def test_finding_then_scoring_is_scoring_what_is_found(work, found, both, name):
    scored = pipeline.score("classifier", found.folder / name, out=work / f"scored-{name}", track=False)
    ours, theirs = both.rows.set_index("case_id"), scored.rows.set_index("case_id")
    assert list(ours.index) == list(theirs.index)
    for column in ("status", "code", "warnings", "decision", "image_sha256", "patient_id", "image", "model_digest"):
        assert list(ours[column].fillna("")) == list(theirs[column].fillna("")), column
    np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-6, rtol=0)
    pd.testing.assert_frame_equal(table(both.folder, "candidates"), table(found.folder, "candidates"), atol=1e-6)


def test_a_series_with_a_hole_in_z_and_a_file_that_is_no_scan_have_their_codes(work):
    write_series(work / "holes" / "series", skip=(6,))
    (work / "holes" / "empty.nii.gz").touch()
    scans = pipeline.find("detector", "holes", out="of-holes", workers=1, track=False).scans
    assert sorted(scans.code) == ["E_EMPTY_FILE", "E_SLICE_GAP"]


def test_the_heat_map_of_a_scan_lies_where_its_candidates_do(work, found):
    view = pipeline.heat_map("detector", "scans/images/0.nii.gz")
    assert view.spacing_mm == 2.0
    row = found.candidates.iloc[0]
    cell = view.cell_at(row[["center_x_mm", "center_y_mm", "center_z_mm"]])
    corner = np.clip(np.rint(cell).astype(int) - 1, 0, None)
    around = view.probabilities[tuple(slice(start, start + 3) for start in corner)]
    assert around.max() == pytest.approx(row.probability_nodule, abs=1e-6)  # an offset is less than a cell
    middle = view.affine[:3, :3] @ np.array([7.0, 8.0, 9.0]) + view.affine[:3, 3]
    np.testing.assert_allclose(view.voxel_at(middle), [7.0, 8.0, 9.0])


def test_a_heat_map_is_of_one_scan(work):
    with pytest.raises(UsageError, match="scans/images: holds several scans, expected one; name one scan"):
        pipeline.heat_map("detector", "scans/images")
    with pytest.raises(CaseError, match="E_SHAPE"):
        pipeline.heat_map("detector", "scans/images/few.nii.gz")


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_tables(work, both):
    other = pipeline.score("classifier", "scans/scans.csv", out="two", find="detector", workers=2, track=False)
    for name in ("scans", "candidates", "scores"):
        pd.testing.assert_frame_equal(table(other.folder, name), table(both.folder, name), atol=1e-6, rtol=0)


def test_a_scans_probability_is_the_noisy_or_of_its_candidates(both):
    rows = both.rows
    candidates = table(both.folder, "candidates")
    scans = both.scans.set_index("scan_id")
    products = candidates.probability_nodule.to_numpy() * rows.probability.to_numpy()
    for scan_id in scans.index[:SCANS]:
        mine = products[(candidates.scan_id == scan_id).to_numpy()]
        assert scans.probability[scan_id] == pytest.approx(1 - 0.95 * np.prod(1 - 0.9 * mine), abs=1e-12)
    assert np.isnan(scans.probability["few"])
    assert set(scans.classifier_digest) == set(rows.model_digest)


def test_no_probability_of_the_scan_is_given_with_another_classifier(work, both):
    write_model(work / "other", seed=1)
    result = pipeline.score("other", "scans/scans.csv", out="with-other", find="detector", track=False)
    assert result.scans.probability.isna().all()
    assert "none was fitted for this detector with this classifier" in result.summary_text
    assert "leaky noisy-or, leak 0.05" in both.summary_text


def test_a_scan_without_candidates_has_a_row_and_the_leak_for_its_probability(work, monkeypatch):
    from pipeline.config.detection import CandidateRules

    digest = read_description(work / "classifier").digests.model
    fitted = ScanProbability(leak=0.05, weight=0.9, classifier_digest=digest)
    rules = CandidateRules(lowest_probability=1.0)
    save_small_detector(work / "silent", scan_probability=fitted, candidates=rules)
    result = pipeline.score(
        "classifier", "scans/images/0.nii.gz", out="silent-out", find="silent", workers=1, track=False
    )
    scan = result.scans.iloc[0]
    assert (scan.scan_id, scan.status, scan.candidates) == ("0.nii.gz", "scored", 0)
    assert scan.probability == pytest.approx(0.05)
    assert len(result.rows) == 0
    assert list(pd.read_parquet(result.folder / "candidates.parquet").columns)[:2] == ["case_id", "image"]


@pytest.mark.slow
def test_one_scan_and_a_folder_can_be_searched_and_their_candidates_scored(work):
    for source in ("scans/images/0.nii.gz", "scans/images"):
        result = pipeline.find("detector", source, out=f"of-{len(source)}", workers=1, track=False)
        scored = pipeline.score("classifier", result.folder / "candidates.csv", out=f"s-{len(source)}", track=False)
        assert set(scored.rows.status) <= {"scored", "flagged"}
        assert len(scored.rows) == len(result.candidates) > 0


@pytest.mark.slow
def test_a_second_run_searches_nothing_and_a_changed_scan_is_refused(work, found, monkeypatch):
    shutil.copytree(work / "scans", work / "copied")
    pipeline.find("detector", "copied/scans.csv", out="again", workers=1, track=False)
    with monkeypatch.context() as patch:
        patch.delattr("pipeline.workflow.scoring_run.score_in_processes")
        again = pipeline.find("detector", "copied/scans.csv", out="again", track=False)
    assert again.summary["scored_by_this_run"] == 0
    assert again.summary["candidates"] == 5 * SCANS
    write_chest(work / "copied" / "images" / "0.nii.gz", [], seed=9)
    assert run(["find", "detector", "copied/scans.csv", "--out", "again", "--no-track"]) == 2


@pytest.mark.slow
def test_a_killed_search_goes_on_and_loses_and_repeats_nothing(work, found):
    command = [sys.executable, "-m", "pipeline", "find", "detector", "scans/scans.csv", "--out", "killed", "--no-track"]
    code = "import pipeline.scoring.sink as s; s._PART_SECONDS = 0.0; from pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, *command[3:], "--workers", "1"]
    first = subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list((work / "killed" / "parts").glob("0*.json")) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    children = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    psutil.wait_procs(children, timeout=30)
    committed = len(list((work / "killed" / "parts").glob("0*.json")))
    assert 0 < committed < SCANS + 1
    assert not (work / "killed" / "scans.parquet").exists()
    result = pipeline.find("detector", "scans/scans.csv", out="killed", track=False)
    assert result.summary["scored_by_this_run"] == SCANS + 1 - committed
    for name in ("scans", "candidates"):
        pd.testing.assert_frame_equal(table(result.folder, name), table(found.folder, name), atol=1e-6, rtol=0)


def test_the_command_exits_1_for_a_scan_that_was_not_searched_and_0_when_that_is_accepted(work, capsys):
    arguments = ["find", "detector", "scans/scans.csv", "--out", "found", "--no-track"]
    assert run(arguments) == 1
    assert "E_SHAPE: 1" in capsys.readouterr().out
    assert run([*arguments, "--accept-rejects", "0.5"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["find", "classifier", "scans/scans.csv"], "is a classifier, expected a detector"),
        (["score", "detector", "scans/scans.csv"], "is a detector of lesions in whole scans, expected a classifier"),
        (["score", "classifier", "scans/scans.csv", "--find", "classifier"], "is a classifier, expected a detector"),
        (["find", "nowhere", "scans/scans.csv"], "nowhere: holds no model.json"),
        (["find", "detector", "scans/none.csv"], "none.csv"),
        (
            ["score", "classifier", "scans/scans.csv", "--find", "detector", "--lesions", "scans"],
            "--lesions and --find: rows are of lesions that somebody marked, or of those that a detector finds",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(work, capsys, arguments, message):
    assert run([*arguments, "--out", "refused", "--no-track"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_of_another_detector_or_of_scores_is_not_gone_on_with(work, found, capsys):
    save_small_detector(work / "second", seed=5)
    assert run(["find", "second", "scans/scans.csv", "--out", "found", "--no-track"]) == 2
    assert "holds rows of another model" in capsys.readouterr().err
    assert run(["score", "classifier", "scans/scans.csv", "--out", "found", "--no-track"]) == 2
    assert "is not a record of scoring" in capsys.readouterr().err


def test_a_damaged_detector_is_refused_before_anything_is_read(work, capsys):
    shutil.copytree(work / "detector", work / "damaged")
    weights = work / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert run(["find", "damaged", "scans/scans.csv", "--out", "refused", "--no-track"]) == 2
    assert "its bytes are not those that were trained" in capsys.readouterr().err


def test_images_elsewhere_are_reached_only_through_a_file_of_ones_own(work, found, capsys):
    shutil.copytree(found.folder, work / "open")
    (work / "open" / "candidates.yaml").chmod(0o666)
    assert run(["score", "classifier", "open/candidates.csv", "--out", "refused", "--no-track"]) == 2
    assert "names images_root, which is followed only in a file of your own" in capsys.readouterr().err
    (work / "open" / "candidates.yaml").unlink()
    assert run(["score", "classifier", "open/candidates.csv", "--out", "unreached", "--no-track"]) == 1
    assert set(pd.read_parquet(work / "unreached" / "scores.parquet").code) == {"E_NOT_FOUND"}
