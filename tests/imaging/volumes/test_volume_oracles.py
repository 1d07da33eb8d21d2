"""MetaImage, NRRD and MGH as SimpleITK and nibabel write them: the same voxels in the same place."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from shared_data import shared
from volume_files import AFFINE, LIMITS, SHAPE, VOXELS, WHOLE, codes, opened, write_mgh

from pipeline.errors import CaseError
from pipeline.files import sha256_bytes
from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.read import open_scan

TYPES = {
    "int8": sitk.sitkInt8, "uint8": sitk.sitkUInt8, "int16": sitk.sitkInt16, "uint16": sitk.sitkUInt16,
    "int32": sitk.sitkInt32, "uint32": sitk.sitkUInt32, "int64": sitk.sitkInt64, "uint64": sitk.sitkUInt64,
    "float32": sitk.sitkFloat32, "float64": sitk.sitkFloat64,
}  # fmt: skip
FORMATS = ("a.mha", "a.mhd", "a.nrrd", "a.nhdr")


def image(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """A SimpleITK image of (x, y, z) values and an affine to RAS."""
    found = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    found.SetSpacing([float(value) for value in spacing])
    found.SetOrigin([float(value) for value in lps[:3, 3]])
    found.SetDirection([float(value) for value in (lps[:3, :3] / spacing).ravel()])
    return found


def values_of(kind: str) -> np.ndarray:
    """Values from end to end of a type; of 64-bit whole numbers, those that float32 can hold."""
    rng, dtype = np.random.default_rng(1), np.dtype(kind)
    if dtype.kind == "f":
        return rng.normal(0, 1000, SHAPE).astype(dtype)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize < 8 else (0, 2**40)
    return rng.integers(low, high, SHAPE, dtype=dtype, endpoint=dtype.itemsize < 8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_type_of_simpleitk_is_read(tmp_path: Path, name: str, kind: str, compressed: bool) -> None:
    values = values_of(kind)
    written = image(values, AFFINE)
    assert written.GetPixelID() == TYPES[kind]
    sitk.WriteImage(written, str(tmp_path / name), compressed)
    found, scan = opened(tmp_path / name)
    np.testing.assert_array_equal(found, values.astype(np.float32))
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    assert codes(scan) == []
    assert (scan.shape, scan.has_millimetres, scan.modality) == (SHAPE, True, None)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 9)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
)
def test_any_direction_is_where_simpleitk_puts_it(
    tmp_path: Path,
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    flips: tuple[float, ...],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * flips * spacing
    affine[:3, 3] = origin
    try:
        nearest_axes(affine)
    except CaseError:
        return  # turned by 45 degrees: refused, whatever the format
    for name in FORMATS:
        sitk.WriteImage(image(VOXELS, affine), str(tmp_path / name))
        found, scan = opened(tmp_path / name)
        np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
        np.testing.assert_array_equal(found, VOXELS)
        assert codes(scan) == []


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_every_type_of_freesurfer_is_read(tmp_path: Path, name: str, kind: str) -> None:
    values, affine = values_of(kind), AFFINE.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", (12, -20, 33), degrees=True).as_matrix() * (1.5, 1.25, 2.0)
    nib.save(nib.MGHImage(values, affine), tmp_path / name)
    found, scan = opened(tmp_path / name)
    np.testing.assert_array_equal(found, values.astype(np.float32))
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    assert codes(scan) == []


def test_hand_written_mgh_is_what_nibabel_reads(tmp_path: Path) -> None:
    path = write_mgh(tmp_path / "a.mgz")
    reference = nib.load(path)
    found, scan = opened(path)
    np.testing.assert_allclose(scan.affine, reference.affine, atol=1e-5)
    np.testing.assert_array_equal(found, np.asarray(reference.dataobj))
    np.testing.assert_array_equal(found, VOXELS)


@pytest.mark.parametrize("name", [*FORMATS, "a.mgh", "a.mgz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_box_equals_the_same_part_of_the_whole_and_the_digest_is_of_all_bytes(
    tmp_path: Path, name: str, compressed: bool
) -> None:
    path = tmp_path / name
    if name in FORMATS:
        sitk.WriteImage(image(VOXELS, AFFINE), str(path), compressed)
    else:
        write_mgh(path)
    box = (slice(1, 6), slice(0, 3), slice(2, 4))
    scan = open_scan(path, limits=LIMITS)
    np.testing.assert_array_equal(scan.read(box), VOXELS[box])
    content = path.read_bytes() + b"".join(other.read_bytes() for other in tmp_path.iterdir() if other != path)
    assert scan.digest == sha256_bytes(content)
    whole = open_scan(path, limits=LIMITS)
    np.testing.assert_array_equal(whole.read(WHOLE), VOXELS)
    assert whole.digest == scan.digest


@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd", "scan.mgz"])
def test_shared_scan_in_other_formats_has_the_voxels_of_the_reference(name: str) -> None:
    folder = shared("odd_scans") / "foreign"
    found, scan = opened(folder / name)
    reference = nib.load(folder / "ref.nii.gz")
    np.testing.assert_array_equal(found, np.asarray(reference.dataobj))
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), (1.5, 1.5, 2.0), atol=1e-6)
    if name == "scan.mgz":
        np.testing.assert_allclose(scan.affine, reference.affine, atol=1e-6)
        assert codes(scan) == []
    else:  # whose headers say nothing of an origin
        assert codes(scan) == ["W_GEOMETRY_MISSING"]
