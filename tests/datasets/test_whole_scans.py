"""Whole demonstration scans: deterministic, nodules where the tables say, nothing outside the scan."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.cli import run
from pipeline.datasets.whole_scans import write
from pipeline.datasets.whole_scans.write import choose_demo_scans, write_whole_scans
from pipeline.errors import UsageError

SEED = 7  # of scans with thick slices and large pixels, which take less time


def read(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_scans(tmp_path_factory.mktemp("whole") / "data", scans=5, seed=SEED).parent


def test_scans_are_the_same_bytes_in_a_subset_and_for_any_number_of_workers(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SCANS_A_WORKER", 1)
    monkeypatch.setattr(write, "usable_cores", lambda: 2)
    few = write_whole_scans(tmp_path / "few", scans=2, seed=SEED).parent
    whole = digests(folder)
    images = {row["image"] for row in read(few / "scans.csv")}
    assert len(images) == 2
    assert all(whole[image] == digests(few)[image] for image in images)
    assert set(digests(few)) == {*images, "scans.csv", "test_scans.csv", "lesions.csv", "NOTICE.txt"}
    for table in ("scans.csv", "lesions.csv"):
        assert [row for row in read(folder / table) if row["image"] in images] == read(few / table)


def test_tables_agree_and_every_fifth_scan_has_no_nodule(folder):
    scans, lesions = read(folder / "scans.csv"), read(folder / "lesions.csv")
    assert [row["lesions"] for row in scans].count("0") == 1
    for row in scans:
        own = [lesion for lesion in lesions if lesion["image"] == row["image"]]
        assert len(own) == int(row["lesions"])
        assert {lesion["patient_id"] for lesion in own} <= {row["patient_id"]}
        labels = {lesion["label"] for lesion in own}
        assert row["label"] == ("1" if "1" in labels else "" if "" in labels else "0")
        assert {lesion["ignore"] for lesion in own} <= {"0"}
        assert all({lesion["solid"], lesion["part_solid_or_ground_glass"]} in ({"0", "1"}, {""}) for lesion in own)
    assert "simulated intensities" in (folder / "NOTICE.txt").read_text().lower()


def test_scans_are_large_enough_and_hold_their_nodules_well_inside(folder):
    lesions = read(folder / "lesions.csv")
    orientations, solid = set(), 0
    for row in read(folder / "scans.csv"):
        image = nib.load(folder / row["image"])
        assert image.get_data_dtype() == np.int16
        assert b"simulated intensities" in image.header["descrip"].tobytes()
        orientations.add(nib.aff2axcodes(image.affine))
        canonical = nib.as_closest_canonical(image)
        spacing = np.array(canonical.header.get_zooms(), float)
        expected = [float(row["pixel_spacing_mm"])] * 2 + [float(row["slice_spacing_mm"])]
        np.testing.assert_allclose(spacing, expected, atol=1e-4)
        assert ((np.array(canonical.shape) - 1) * spacing >= (160, 160, 200)).all()
        for lesion in (lesion for lesion in lesions if lesion["image"] == row["image"]):
            centre = [float(lesion[f"center_{axis}_mm"]) for axis in "xyz"]
            voxel = np.linalg.solve(canonical.affine, [*centre, 1])[:3]
            assert (voxel * spacing >= 20).all()
            assert ((np.array(canonical.shape) - 1 - voxel) * spacing >= 20).all()
            if lesion["solid"] == "1" and float(lesion["diameter_mm"]) > 8:
                x, y, z = (slice(index - 1, index + 2) for index in np.rint(voxel).astype(int))
                assert np.median(canonical.dataobj[x, y, z]) > -400
                solid += 1
    assert len(orientations) > 2
    assert solid > 2


def test_fewer_scans_are_the_first_of_more():
    few, more = (
        {whole.scan_id: len(whole.cases) for whole in choose_demo_scans(number, seed=1)} for number in (20, 100)
    )
    assert few.items() <= more.items()
    assert sum(not count for count in more.values()) == 20
    assert len({whole.scan.patient_id for whole in choose_demo_scans(100, seed=1)}) == 100


@pytest.mark.parametrize("scans", [0, 1, 5000])
def test_an_impossible_number_of_scans_is_refused(tmp_path, scans):
    with pytest.raises(UsageError, match=rf"whole scans: {scans} is not between 2 and"):
        write_whole_scans(tmp_path / "out", scans=scans)


def test_command_takes_scans_or_cases(tmp_path, capsys):
    assert run(["demo-data", str(tmp_path / "out"), "--whole-scans", "2", "--cases", "2"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert run(["demo-data", str(tmp_path / "out"), "--whole-scans", "0"]) == 2
    assert "whole scans: 0 is not between 2 and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_whole_scans(tmp_path, scans=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
