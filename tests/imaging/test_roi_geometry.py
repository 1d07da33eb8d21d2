"""The grid is where it must be, whatever the file looks like: oracles and invariances."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, Resize, ScaleIntensityRanged, SpatialResample
from scan_files import AFFINE, CENTER_MM, LIMITS, SHAPE, codes, lesion, phantom, save
from scipy.ndimage import map_coordinates, zoom

from pipeline.config.inputs import Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.checks import check_affine, right_angles
from pipeline.imaging.preprocess import ScanRequest, preprocess
from pipeline.imaging.region import ReadRegiond
from pipeline.imaging.roi import Grid, image_grid, lesion_grid
from pipeline.imaging.roi_tilted import TiltedGrid

VOXELS = phantom()
EVERY_ORIENTATION = [
    np.stack([order, flips], axis=1)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
RAW = {"intensity": {"scaling": "window", "lower": -3000.0, "upper": 3000.0}}


def hounsfield(model_input) -> np.ndarray:
    return model_input.voxels[0] * 6000.0 - 3000.0


def oblique(degrees: float = 20.0) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tip @ AFFINE[:3, :3]
    affine[:3, 3] = (-10, -20, -8)
    return affine


@pytest.mark.parametrize("turn", EVERY_ORIENTATION, ids=lambda turn: "".join(map(str, turn.ravel())))
def test_any_stored_orientation_gives_the_same_tensor(tmp_path: Path, turn: np.ndarray) -> None:
    for affine in (AFFINE, oblique()):
        center = tuple(affine[:3, :3] @ (5.3, 12.8, 11.2) + affine[:3, 3])
        image = nib.Nifti1Image(VOXELS, affine)
        nib.save(image, tmp_path / "a.nii")
        nib.save(image.as_reoriented(turn), tmp_path / "b.nii.gz")
        one, other = (lesion(tmp_path / name, center) for name in ("a.nii", "b.nii.gz"))
        np.testing.assert_allclose(other.voxels, one.voxels, atol=1e-5)
        for name, value in one.measures.items():
            assert other.measures[name] == pytest.approx(value, abs=1e-2), name
        whole = {"region": "image", "spacing_mm": (2.0, 2.0, 3.0)}
        np.testing.assert_allclose(
            lesion(tmp_path / "b.nii.gz", None, **whole).voxels,
            lesion(tmp_path / "a.nii", None, **whole).voxels,
            atol=1e-5,
        )
        whole["spacing_mm"] = None
        np.testing.assert_allclose(
            lesion(tmp_path / "b.nii.gz", None, **whole).voxels,
            lesion(tmp_path / "a.nii", None, **whole).voxels,
            atol=1e-5,
        )


@pytest.mark.parametrize("make", [lambda: AFFINE, oblique], ids=["straight", "oblique"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.9, 2.4)])
def test_monai_resampling_the_whole_volume_agrees(tmp_path: Path, make, spacing: tuple[float, ...]) -> None:
    affine = make()
    smooth = zoom(np.random.default_rng(0).normal(0, 400, (7, 6, 5)), (4, 4, 4), order=1).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", smooth, affine)
    index = np.array([13.37, 11.81, 9.23])
    center = tuple(affine[:3, :3] @ index + affine[:3, 3])
    size, steps = (10, 8, 8), np.array(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    found = hounsfield(lesion(path, center, size=size, spacing_mm=spacing, **RAW))

    # The extension of the same grid over the whole volume, then a crop to the nodes of the region.
    before = [int(np.floor(place / step)) for place, step in zip(index, steps, strict=True)]
    after = [int(np.floor((n - 1 - place) / step)) for n, place, step in zip(smooth.shape, index, steps, strict=True)]
    grid = affine @ np.block([[np.diag(steps), (index - before * steps)[:, None]], [np.zeros(3), 1]])
    whole = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float64)(
        MetaTensor(torch.from_numpy(smooth[None].astype(np.float64)), affine=torch.from_numpy(affine)),
        dst_affine=torch.from_numpy(grid),
        spatial_size=[low + high + 1 for low, high in zip(before, after, strict=True)],
    )[0].numpy()
    for world in range(3):
        assert before[world] >= size[world] // 2, "the oracle must cover the region"
    start = [low - length // 2 for low, length in zip(before, size, strict=True)]
    reference = whole[tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))]
    assert reference.shape == size
    assert np.abs(found - reference).max() < 1


def test_slow_interpolation_in_world_space_agrees(tmp_path: Path) -> None:
    affine = oblique(31)
    path = save(tmp_path / "a.nii", VOXELS, affine)
    center = affine[:3, :3] @ (11.2, 9.7, 8.1) + affine[:3, 3]
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    found = hounsfield(lesion(path, tuple(center), size=(9, 8, 10), spacing_mm=(1.1, 0.9, 1.3), **RAW))
    steps = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in (9, 8, 10)), indexing="ij"), -1) * (1.1, 0.9, 1.3)
    world = center + steps @ directions.T
    index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    slow = map_coordinates(VOXELS.astype(float), index.reshape(-1, 3).T, order=1, mode="nearest").reshape(9, 8, 10)
    assert np.abs(found - slow).max() < 1e-2


@pytest.mark.parametrize("length", [8, 9])
def test_node_half_the_size_lies_on_the_centre(length: int) -> None:
    grid = lesion_grid(Path("a"), SHAPE, AFFINE, center_mm=CENTER_MM, size=(length,) * 3, spacing=(1.1, 1.2, 1.3))
    for world, nodes in enumerate(grid.coordinates):
        assert nodes[length // 2] == pytest.approx((np.linalg.inv(AFFINE) @ [*CENTER_MM, 1])[world], abs=1e-12)
    np.testing.assert_allclose(grid.affine[:3] @ [*[length // 2] * 3, 1], CENTER_MM)


def test_cropping_the_file_away_from_the_region_changes_nothing(tmp_path: Path) -> None:
    voxels = phantom(3, (60, 50, 40))
    center = tuple(AFFINE[:3, :3] @ (30.4, 24.7, 20.2) + AFFINE[:3, 3])
    whole = lesion(save(tmp_path / "a.nii.gz", voxels), center)
    first, last = np.array((24, 19, 15)), np.array((38, 32, 26))
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ first
    part = voxels[tuple(slice(low, high) for low, high in zip(first, last, strict=True))]
    cut = lesion(save(tmp_path / "b.nii", part, affine), center)
    np.testing.assert_allclose(cut.voxels, whole.voxels, atol=1e-5)
    assert cut.measures == pytest.approx(whole.measures, abs=1e-2)
    assert cut.measures["share_inside"] == 1
    assert cut.warnings == whole.warnings


def test_only_the_box_is_read(tmp_path: Path) -> None:
    grid = lesion_grid(
        Path("a"), (512, 512, 200), np.eye(4), center_mm=(250, 250, 100), size=(64,) * 3, spacing=(1.0,) * 3
    )
    assert [part.stop - part.start for part in grid.box] == [65, 65, 65]
    assert grid.share_inside == 1


def test_outside_the_image_there_is_air_and_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS)
    found = lesion(path, (-17.0, 4.5, 6.0), **RAW)
    values = hounsfield(found)
    np.testing.assert_allclose(values[:4], -1000, atol=0.01)
    assert not np.allclose(values[6:], -1000)
    assert "W_PADDING" in codes(found.warnings)
    assert found.measures["share_inside"] == pytest.approx(np.mean(values != values[0, 0, 0]), abs=0.2)
    assert lesion(path, (-17.0, 4.5, 6.0)).voxels[0, 0, 0, 0] == 0  # air, cut off at the window's lower end


def test_edge_voxels_reach_half_their_width(tmp_path: Path) -> None:
    flat = np.zeros((8, 8, 8), np.int16)
    flat[0] = 100
    flat[:, 4:] += 50
    affine = np.diag([2.0, 2, 2, 1])
    grid = lesion_grid(Path("a"), flat.shape, affine, center_mm=(0, 8, 8), size=(8, 8, 8), spacing=(1.0, 1.0, 1.0))
    assert list(np.flatnonzero(grid.inside[0])) == [3, 4, 5, 6, 7]  # -1 mm is the edge; -2 mm is outside
    values = grid.pad(grid.resample(flat.astype(np.float32)[grid.box]), -7)
    assert (values[:3] == -7).all()
    assert (values[3] == values[4]).all()


@pytest.mark.parametrize(
    ("center", "code"),
    [
        (None, "E_CENTER_MISSING"),
        ((np.nan, 0, 0), "E_CENTER: "),
        ((np.inf, 0, 0), "E_CENTER: "),
        ((1e6, 0, 0), "E_CENTER: "),
        ((-18.8, 4.5, 6.0), "E_ROI_OUTSIDE"),
        ((9.75, 4.5, 300.0), "E_ROI_OUTSIDE"),
    ],
)
def test_impossible_centres_are_refused(tmp_path: Path, center: tuple[float, float, float] | None, code: str) -> None:
    with pytest.raises(CaseError, match=code):
        lesion(save(tmp_path / "a.nii", VOXELS), center)


def test_centre_in_air_is_flagged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS)
    assert "W_CENTER_IN_AIR" not in codes(lesion(path).warnings)
    flipped = (-CENTER_MM[0] + 6, -CENTER_MM[1] - 10, CENTER_MM[2])
    assert "W_CENTER_IN_AIR" in codes(lesion(path, flipped).warnings)


def test_image_grid_is_symmetric_about_the_image() -> None:
    grid = image_grid(Path("a"), SHAPE, AFFINE, size=(10, 11, 40), spacing=(1.5, 1.5, 2.0))
    for nodes, length in zip(grid.coordinates, SHAPE, strict=True):
        assert nodes[0] + nodes[-1] == pytest.approx(length - 1)
    assert [int(axis.sum()) for axis in grid.inside] == [10, 11, 16]


def test_image_of_the_right_size_and_spacing_is_untouched(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS)
    for spacing in ((1.5, 1.5, 2.0), None):
        found = lesion(path, None, region="image", size=SHAPE, spacing_mm=spacing, **RAW)
        np.testing.assert_allclose(hounsfield(found), VOXELS, atol=2e-3)
        assert found.measures["share_inside"] == 1


@pytest.mark.parametrize("size", [(12, 10, 8), (48, 40, 32), (12, 40, 16)])
def test_resizing_is_monais_with_anti_aliasing(tmp_path: Path, size: tuple[int, int, int]) -> None:
    found = lesion(save(tmp_path / "a.nii", VOXELS), None, region="image", size=size, spacing_mm=None, **RAW)
    oracle = Resize(size, mode="trilinear", anti_aliasing=True)(torch.from_numpy(VOXELS[None].astype(np.float32)))[0]
    np.testing.assert_allclose(hounsfield(found), oracle, atol=0.01)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_slices_of_every_plane_keep_their_axes(tmp_path: Path, across: int) -> None:
    part = [slice(None)] * 3
    part[across] = slice(7, 8)
    path = save(tmp_path / "a.nii.gz", VOXELS[tuple(part)])
    plane = tuple(length for axis, length in enumerate(SHAPE) if axis != across)
    spacing = tuple(value for axis, value in enumerate((1.5, 1.5, 2.0)) if axis != across)
    for choice in (spacing, None):
        config = Preprocessing(dimensions=2, region="image", size=plane, spacing_mm=choice, **RAW)
        found = preprocess(ScanRequest(path, None), config, modality="CT")
        np.testing.assert_allclose(hounsfield(found), VOXELS[tuple(part)].squeeze(across), atol=2e-3)
        assert found.measures["slice_axis"] == across
        assert "spacing_slice_mm" not in found.measures
    small = Preprocessing(dimensions=2, region="image", size=(8, 8), spacing_mm=None)
    assert preprocess(ScanRequest(path, None), small, modality="CT").voxels.shape == (1, 8, 8)


def test_volumes_and_slices_are_not_mixed_up(tmp_path: Path) -> None:
    volume, slab = save(tmp_path / "a.nii", VOXELS), save(tmp_path / "b.nii", VOXELS[:, :, :1])
    flat = Preprocessing(dimensions=2, region="image", size=(16, 16), spacing_mm=None)
    with pytest.raises(CaseError, match=r"E_SHAPE.*takes single slices"):
        preprocess(ScanRequest(volume, None), flat, modality="CT")
    with pytest.raises(CaseError, match=r"E_SHAPE.*takes volumes"):
        lesion(slab)


def test_region_reader_works_in_a_users_compose(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS)
    read = ReadRegiond("scan", size=(12, 12, 12), spacing_mm=(1, 1, 1), modality="CT", limits=LIMITS)
    result = Compose([read, Lambdad("scan", ScaleIntensityRanged("x", -1000, 400, 0, 1, clip=True).scaler)])(
        {"scan": str(path), "center_mm": CENTER_MM, "label": 1}
    )
    np.testing.assert_allclose(result["scan"].numpy(), lesion(path).voxels, atol=1e-6)
    assert result["label"] == 1
    assert result["scan_facts"].scan.shape == SHAPE
    world = result["scan"].affine.numpy() @ [6, 6, 6, 1]
    np.testing.assert_allclose(world[:3], CENTER_MM)


def test_absurd_shrinking_is_refused_at_once(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii.gz", np.zeros((16, 30_000, 1), np.int16) + np.arange(16, dtype=np.int16)[:, None, None]
    )
    config = Preprocessing(dimensions=2, region="image", size=(16, 16), spacing_mm=None)
    with pytest.raises(CaseError, match=r"E_SHAPE: 16 x 30000 x 1 voxels, more than 100"):
        preprocess(ScanRequest(path, None), config, modality="MR")


@pytest.mark.parametrize("turn", EVERY_ORIENTATION[::7], ids=lambda turn: "".join(map(str, turn.ravel())))
@pytest.mark.parametrize("spacing", [None, (2.0, 2.5, 3.0)])
def test_affine_of_an_image_region_keeps_its_place(
    tmp_path: Path, turn: np.ndarray, spacing: tuple[float, ...] | None
) -> None:
    image = nib.Nifti1Image(VOXELS, oblique())
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii")
    read = ReadRegiond("scan", size=(12, 10, 16), spacing_mm=spacing, region="image", modality="CT")
    affine = read({"scan": tmp_path / "a.nii"})["scan"].affine.numpy()
    middle = oblique() @ [*((length - 1) / 2 for length in SHAPE), 1]
    np.testing.assert_allclose(affine @ [5.5, 4.5, 7.5, 1], middle, atol=1e-4)
    lengths = spacing or [length * mm / n for length, mm, n in zip(SHAPE, (1.5, 1.5, 2.0), (12, 10, 16), strict=True)]
    directions = oblique()[:3, :3] / (1.5, 1.5, 2.0)
    np.testing.assert_allclose(affine[:3, :3], directions * lengths, atol=1e-5)


# Axes that are not at right angles


def tilted(degrees: float, *, spacing: tuple[float, float, float] = (1.5, 1.5, 2.0)) -> np.ndarray:
    """A CT whose gantry is tilted: rows to the right, columns tipped backwards, slices one above the other."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, 0] = spacing[0] * np.array([1, 0, 0])
    affine[:3, 1] = spacing[1] * np.array([0, np.cos(angle), np.sin(angle)])
    affine[:3, 2] = spacing[2] * np.array([0, 0, 1])
    affine[:3, 3] = -(affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2))
    return affine


def ball(affine: np.ndarray, shape: tuple[int, int, int] = (60, 60, 40), radius_mm: float = 12.0) -> np.ndarray:
    """A soft ball about the world's origin: 200 HU inside, -800 far away, a slope of 100 a mm between."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3], axis=-1)
    return np.clip(-300 - 100 * (distance - radius_mm), -800, 200).astype(np.int16)


@pytest.mark.parametrize("degrees", [2, 10, 20, 30])
@pytest.mark.parametrize("region", ["lesion", "image"])
def test_ball_in_a_tilted_scan_is_a_ball_for_the_network(tmp_path: Path, degrees: float, region: str) -> None:
    """Along the scan's own axes it was drawn out by up to a fifth in one diagonal."""
    affine = tilted(degrees, spacing=(0.8, 0.8, 1.0))
    affine[:3, 3] = -(affine[:3, :3] @ (30.2, 29.6, 19.9))
    path = save(tmp_path / "a.nii", ball(affine), affine)
    changes = {"size": (24, 24, 24), "spacing_mm": (1.0, 1.1, 1.2), "region": region, **RAW}
    found = lesion(path, (0.0, 0.0, 0.0) if region == "lesion" else None, **changes)
    middle = np.full(3, 12.0)
    if region == "image":  # the middle of the image is not quite the ball's
        offset = affine[:3, :3] @ ((np.array((60, 60, 40)) - 1) / 2) + affine[:3, 3]
        middle = 11.5 - right_angles(affine).T @ offset / (1.0, 1.1, 1.2)
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1)
    distance = np.linalg.norm((grid - middle) * (1.0, 1.1, 1.2), axis=-1)
    expected = np.clip(-300 - 100 * (distance - 12.0), -800, 200)
    inside = distance < 15.5
    assert np.abs(hounsfield(found) - expected)[inside].max() < 60  # 0.6 mm, at the corners of the clipped slope
    assert np.abs(hounsfield(found) - expected)[inside].mean() < 4
    assert "W_SHEAR" in codes(found.warnings)


@pytest.mark.parametrize("turn", EVERY_ORIENTATION, ids=lambda turn: "".join(map(str, turn.ravel())))
def test_tilted_scan_gives_the_same_tensor_however_it_is_stored(tmp_path: Path, turn: np.ndarray) -> None:
    image = nib.Nifti1Image(VOXELS, tilted(14))
    center = tuple(tilted(14)[:3, :3] @ (5.3, 12.8, 11.2) + tilted(14)[:3, 3])
    nib.save(image, tmp_path / "a.nii")
    nib.save(image.as_reoriented(turn), tmp_path / "b.nii.gz")
    one, other = (lesion(tmp_path / name, center) for name in ("a.nii", "b.nii.gz"))
    np.testing.assert_allclose(other.voxels, one.voxels, atol=1e-5)
    assert other.measures["share_inside"] == one.measures["share_inside"]


def test_monai_agrees_on_a_tilted_grid(tmp_path: Path) -> None:
    smooth = zoom(np.random.default_rng(0).normal(0, 400, (7, 6, 5)), (4, 4, 4), order=1).astype(np.int16)
    affine = tilted(17)
    center = tuple(affine[:3, :3] @ (13.3, 11.8, 9.2) + affine[:3, 3])
    found = hounsfield(lesion(save(tmp_path / "a.nii", smooth, affine), center, size=(8, 9, 8), **RAW))
    grid = lesion_grid(Path("a"), smooth.shape, affine, center_mm=center, size=(8, 9, 8), spacing=(1.0, 1.0, 1.0))
    assert isinstance(grid, TiltedGrid)
    reference = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float64)(
        MetaTensor(torch.from_numpy(smooth[None].astype(np.float64)), affine=torch.from_numpy(affine)),
        dst_affine=torch.from_numpy(grid.affine),
        spatial_size=(8, 9, 8),
    )[0].numpy()
    assert np.abs(found - reference).max() < 1
    np.testing.assert_allclose(grid.affine @ [4, 4, 4, 1], [*center, 1], atol=1e-9)
    directions = grid.affine[:3, :3]
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)


def test_tilted_grid_reads_only_what_it_touches_and_pads_the_rest(tmp_path: Path) -> None:
    affine = tilted(20)
    grid = lesion_grid(
        Path("a"), (512, 512, 200), affine, center_mm=tuple(affine[:3] @ [250, 250, 100, 1]), size=(32,) * 3,
        spacing=(1.5, 1.5, 1.5),
    )  # fmt: skip
    assert max(part.stop - part.start for part in grid.box) < 50
    assert grid.share_inside == 1
    edge = tuple(affine[:3] @ [0.2, 10, 8, 1])
    path = save(tmp_path / "a.nii", VOXELS, affine)
    found = lesion(path, edge, **RAW)
    assert 0.2 < found.measures["share_inside"] < 0.7
    np.testing.assert_allclose(hounsfield(found)[0], -1000, atol=0.01)
    assert "W_PADDING" in codes(found.warnings)


def test_small_shear_keeps_the_separable_grid() -> None:
    """A rounded affine is no tilt; up to half a degree, distances are wrong by less than a hundredth."""
    for degrees, kind in ((0.5, Grid), (0.6, TiltedGrid)):
        grid = lesion_grid(
            Path("a"), SHAPE, tilted(degrees), center_mm=(0, 0, 0), size=(9, 9, 9), spacing=(1.0, 1.0, 1.0)
        )
        assert isinstance(grid, kind)
        corners = np.array(list(itertools.product((-4, 4), repeat=3)))
        lengths = np.linalg.norm(corners @ grid.affine[:3, :3].T, axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(corners, axis=1), rtol=0.01)


def test_tilt_that_no_gantry_has_is_refused() -> None:
    assert [warning.code for warning in check_affine(Path("a"), tilted(34))] == ["W_SHEAR"]
    with pytest.raises(CaseError, match=r"E_AFFINE: axes 36.0 degrees from a right angle, expected at most 35"):
        check_affine(Path("a"), tilted(36))


def test_direction_across_a_single_slice_means_nothing(tmp_path: Path) -> None:
    affine = tilted(20)
    path = save(tmp_path / "a.nii", VOXELS[:, :, 7:8], affine)
    config = Preprocessing(dimensions=2, region="image", size=(24, 20), spacing_mm=(1.5, 1.5), **RAW)
    found = preprocess(ScanRequest(path, None), config, modality="CT")
    np.testing.assert_allclose(hounsfield(found), VOXELS[:, :, 7], atol=2e-3)
