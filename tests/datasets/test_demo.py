"""Demonstration data: deterministic, not circular, whole patients, in the right place whatever the orientation."""

import csv
import hashlib
import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pipeline.cases.lesions.files.lidc_readings import READERS
from pipeline.datasets import demo
from pipeline.datasets.chest_anatomy import make_grid
from pipeline.datasets.demo import FINDINGS, choose_cases, render_case, store, write_demo_data
from pipeline.datasets.lidc import load_nodules
from pipeline.errors import UnfinishedError, UsageError


def read(manifest):
    with open(manifest, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_demo_data(tmp_path_factory.mktemp("demo") / "data", cases=8, seed=3)


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CASES_A_WORKER", 4)
    monkeypatch.setattr(demo, "usable_cores", lambda: 2)
    again = write_demo_data(tmp_path / "again", cases=8, seed=3)
    assert digests(again.parent) == digests(manifest.parent)
    assert len(digests(again.parent)) == 8 + 3  # two tables and the notice


def test_a_case_looks_the_same_in_a_subset(manifest, tmp_path):
    few = write_demo_data(tmp_path / "few", cases=2, seed=3)
    whole = digests(manifest.parent)
    assert all(whole[row["image"]] == digests(few.parent)[row["image"]] for row in read(few))
    assert [row for row in read(manifest) if row["case_id"] in {r["case_id"] for r in read(few)}] == read(few)


def test_another_seed_gives_other_images():
    case = choose_cases(load_nodules(), cases=1, seed=0)[0]
    assert not np.array_equal(render_case(case, 0).dataobj, render_case(case, 1).dataobj)


def test_compressed_files_hold_no_time(manifest):
    for row in read(manifest):
        assert (manifest.parent / row["image"]).read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_unlabelled_rows_stand_again_in_a_table_to_be_scored(tmp_path):
    manifest = write_demo_data(tmp_path / "out", cases=10, seed=0)
    assert read(manifest.with_name("unlabelled.csv")) == [row for row in read(manifest) if not row["label"]]


def test_label_and_findings_leave_the_painted_reading_out():
    # Recomputed for every case from the published ratings and the manifest's row alone.
    labelled = 0
    for case in choose_cases(load_nodules(), cases=None, seed=0):
        row = demo.manifest_row(case)
        ratings = case.nodule.ratings
        stated = [int(value) for value in row["ratings"].split("|")]
        readers = range(case.nodule.readings)
        painters = [
            reader
            for reader in readers
            if [ratings["malignancy"][other] for other in readers if other != reader] == stated
            and all(int(row[f"painted_{name}"]) == ratings[name][reader] for name in ratings if name != "malignancy")
        ]
        assert case.painter in painters
        assert int(row["n_readers"]) == len(stated) == case.nodule.readings - 1
        mean = sum(stated) / len(stated)
        assert row["label"] == row["malignant"] == ("" if mean == 3 else str(int(mean > 3)))
        labelled += row["label"] != ""
        for name, (attribute, present) in FINDINGS.items():
            votes = [present(ratings[attribute][other]) for other in readers if other != case.painter]
            share = sum(votes) / len(votes)
            assert row[name] == ("" if share == 0.5 else str(int(share > 0.5)))
    assert 1000 < labelled < 1378


def test_image_depends_on_the_painted_reading_alone():
    case = next(c for c in choose_cases(load_nodules(), cases=40, seed=1) if c.painted.texture == 5)
    before = render_case(case, 1).to_bytes()
    keep = case.painter

    def rewritten(change):
        ratings = {
            name: tuple(change(name, reader, value) for reader, value in enumerate(values))
            for name, values in case.nodule.ratings.items()
        }
        return replace(case, nodule=replace(case.nodule, ratings=ratings))

    others = rewritten(lambda name, reader, value: value if reader == keep else 6 - value % 5)
    assert render_case(others, 1).to_bytes() == before
    opinion = rewritten(lambda name, reader, value: 6 - value if name == "malignancy" else value)
    assert render_case(opinion, 1).to_bytes() == before
    for name, value in (("texture", 1), ("calcification", 3), ("margin", 6 - case.painted.margin)):
        if value == getattr(case.painted, name):
            continue
        painted = rewritten(
            lambda n, reader, old, name=name, value=value: value if (n, reader) == (name, keep) else old
        )
        assert render_case(painted, 1).to_bytes() != before


def test_patients_are_taken_whole_but_for_one():
    usable = [nodule for nodule in load_nodules() if nodule.mask is not None]
    for cases in (1, 7, 50):
        chosen = choose_cases(load_nodules(), cases=cases, seed=5)
        assert len(chosen) == cases
        patients = {case.nodule.patient_id for case in chosen}
        available = sum(nodule.patient_id in patients for nodule in usable)
        cut = {
            patient
            for patient in patients
            if sum(case.nodule.patient_id == patient for case in chosen)
            < sum(nodule.patient_id == patient for nodule in usable)
        }
        assert len(cut) == (1 if available > cases else 0)


def test_all_cases_are_about_1390_and_need_no_nodule_with_more_readings_than_readers():
    chosen = choose_cases(load_nodules(), cases=None, seed=0)
    assert len(chosen) == 1378
    assert not any(case.nodule.readings > READERS for case in chosen)


def test_manifest_keeps_the_contract(manifest):
    rows = read(manifest)
    assert len(rows) == 8
    assert "split" not in rows[0]
    needed = {"case_id", "patient_id", "image", "label", "coordinate_system", "diameter_mm", "painted_texture"}
    assert needed <= set(rows[0])
    for row in rows:
        assert row["coordinate_system"] == "RAS"
        assert row["label"] in {"0", "1", ""}
        assert (manifest.parent / row["image"]).is_file()
    assert "simulated intensities" in (manifest.parent / "NOTICE.txt").read_text().lower()


def test_images_are_hounsfield_crops_with_the_centre_well_inside(manifest):
    orientations = set()
    for row in read(manifest):
        image = nib.load(manifest.parent / row["image"])
        assert image.get_data_dtype() == np.int16
        header = image.header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        spacing = [float(row["pixel_spacing_mm"])] * 2 + [float(row["slice_spacing_mm"])]
        canonical = nib.as_closest_canonical(image)
        assert np.allclose(canonical.header.get_zooms(), spacing, atol=1e-4)
        centre = [float(row[f"center_{axis}_mm"]) for axis in "xyz"]
        voxel = np.linalg.solve(canonical.affine, [*centre, 1])[:3]
        assert (voxel * spacing >= 20).all()
        assert ((np.array(canonical.shape) - 1 - voxel) * spacing >= 20).all()
        assert -1024 <= image.dataobj[:].min() < -700
        assert image.dataobj[:].max() <= 3071
        orientations.add(nib.aff2axcodes(image.affine))
    assert len(orientations) > 4


def test_any_stored_orientation_keeps_every_voxel_in_its_place():
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 100, (4, 5, 6), dtype=np.int16)
    affine = np.array([[-0.7, 0, 0, 12], [0, -0.7, 0, 34], [0, 0, 2.5, -56], [0, 0, 0, 1]])
    straight = nib.as_closest_canonical(nib.Nifti1Image(hu, affine))
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            image = store(hu, affine, np.stack([axes, signs], axis=1))
            for form in (image.get_sform(), image.get_qform()):
                back = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(image.dataobj), form))
                assert np.array_equal(back.dataobj, straight.dataobj)
                assert np.allclose(back.affine, straight.affine, atol=1e-4)


def test_the_lesion_lies_where_the_annotations_put_it():
    # The right mirroring of the shape is the one that fits the bright voxels best.
    cases = [
        case
        for case in choose_cases(load_nodules(), cases=None, seed=0)
        if case.painted.texture == 5 and 20 < case.nodule.diameter_mm < 30 and case.painted.margin > 3
    ][:6]
    hits = 0
    for case in cases:
        image, mask = render_case(case, 0), case.nodule.mask
        points = np.stack(np.meshgrid(*[np.arange(n) for n in mask.voxels.shape], indexing="ij"), -1).reshape(-1, 3)
        points = (points * mask.spacing_mm + mask.offset_mm)[mask.voxels.ravel()]
        x, y, z = demo.centre_lps_mm(case.nodule)
        fits = {}
        for flips in itertools.product((1, -1), repeat=3):
            middle = points.mean(0)
            lps = (points - middle) * flips + middle
            world = np.column_stack([-x - lps[:, 0], -y - lps[:, 1], z + lps[:, 2], np.ones(len(lps))])
            voxels = np.rint(np.linalg.solve(image.affine, world.T)[:3]).astype(int)
            inside = (voxels >= 0).all(0) & (image.shape > voxels.T).all(1)
            assert inside.mean() > 0.9
            fits[flips] = np.mean(np.asarray(image.dataobj)[tuple(voxels[:, inside])] > -400)
        hits += max(fits, key=fits.get) == (1, 1, 1)
    assert hits == len(cases) == 6


def test_slices_average_over_exactly_their_thickness():
    for spacing, thickness in ((2.5, 2.5), (0.625, 1.25), (3.0, 1.0), (1.0, 5.0)):
        grid = make_grid(0.7, spacing, thickness, np.full(3, -22.3), np.full(3, 21.9))
        assert np.allclose(grid.slice_weights.sum(1), 1, atol=1e-5)
        assert grid.slices[-1] >= 21.9
        assert np.allclose(grid.slice_weights @ grid.z, grid.slices, atol=1e-3)
        assert np.diff(grid.z).max() < 1.001
        # Variance of a box of that thickness; planes add their own height's.
        step = float(grid.z[1] - grid.z[0])
        spread = grid.slice_weights @ grid.z.astype(float) ** 2 - grid.slices.astype(float) ** 2
        assert np.allclose(spread + step**2 / 12, thickness**2 / 12, atol=step**2 / 3)


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_demo_data(tmp_path, cases=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("cases", [0, -1, 5000])
def test_an_impossible_number_of_cases_is_refused(tmp_path, cases):
    with pytest.raises(UsageError, match=rf"cases: {cases} is not between 1 and 1378"):
        write_demo_data(tmp_path / "out", cases=cases)


def test_nothing_is_left_behind_when_rendering_fails(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "render_case", full)
    with pytest.raises(OSError, match="No space left"):
        write_demo_data(tmp_path / "out", cases=1)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_worker_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CASES_A_WORKER", 1)
    monkeypatch.setattr(demo, "usable_cores", lambda: 2)
    chosen = choose_cases(load_nodules(), cases=2, seed=0)
    with pytest.raises(UnfinishedError, match=r"rendering stopped with exit status 1: FileNotFoundError"):
        demo._write_images(tmp_path / "absent", chosen, 0, 2)
