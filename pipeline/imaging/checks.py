"""Checks that every reader shares: the file as a container, the size that a header claims, the affine."""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Affine, Warning, spacing_mm

# Distances between voxel centres, mm. Wider than any scanner of people makes; far below what a header in
# metres or above what one in micrometres would say.
SMALLEST_SPACING_MM, LARGEST_SPACING_MM = 0.02, 50.0
# Rounding of an affine in float32 stays far below the first; a gantry tilt of one degree reaches the second.
_SHEAR_NOTICED = 0.01
# No gantry tilts further than 30 degrees; beyond this, an affine is more likely wrong than tilted.
_MOST_TILT_DEGREES = 35.0
# Cosines by which the best assignment of axes must beat the next best: below it, R, A and S are ambiguous.
_AXES_MARGIN = 1e-3
# Beyond this, coordinates in float32 no longer resolve a tenth of a millimetre.
_FARTHEST_MM = 1e5

_OPEN_ERRORS = {
    errno.ENOENT: (Code.E_NOT_FOUND, "no such file; check the path in the manifest"),
    errno.ENOTDIR: (Code.E_NOT_FOUND, "no such file; a part of the path is not a folder"),
    errno.ELOOP: (Code.E_NOT_FOUND, "a link that leads back to itself"),
    errno.ENAMETOOLONG: (Code.E_NOT_FOUND, "no such file; the name is longer than the file system allows"),
    errno.EACCES: (Code.E_PERMISSION, "not readable by this user; change the file's permissions"),
    errno.EPERM: (Code.E_PERMISSION, "not readable by this user; change the file's permissions"),
    errno.ENXIO: (Code.E_NOT_REGULAR, "a socket or a device without a reader, expected a file"),
    errno.EISDIR: (Code.E_NOT_REGULAR, "a folder, expected a file"),
}


def _os_error(error: OSError, path: Path) -> CaseError:
    code, reason = _OPEN_ERRORS.get(
        error.errno or 0, (Code.E_INTERNAL, f"the operating system could not read it ({error.strerror})")
    )
    return CaseError(code, path, reason)


def file_kind(path: Path) -> str:
    """``"file"`` or ``"folder"``, links followed, nothing opened.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION, or E_NOT_REGULAR for a pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _os_error(error, path) from None
    except ValueError:  # a NUL in the path
        raise CaseError(
            Code.E_NOT_FOUND, str(path).replace("\0", "\\0"), "no such file; the path holds a NUL"
        ) from None
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    raise CaseError(Code.E_NOT_REGULAR, path, "a pipe, socket or device, expected a file or a folder")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular, non-empty file for reading, without ever waiting for a pipe's writer.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION, E_NOT_REGULAR or E_EMPTY_FILE.
    """
    if file_kind(path) == "folder":
        raise CaseError(Code.E_NOT_REGULAR, path, "a folder, expected a file")
    try:
        # The file may have been exchanged since it was looked at: NONBLOCK keeps a pipe from hanging the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _os_error(error, path) from None
    handle = os.fdopen(descriptor, "rb", buffering=0)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        handle.close()
        raise CaseError(Code.E_NOT_REGULAR, path, "a pipe, socket or device, expected a file")
    if status.st_size == 0:
        handle.close()
        raise CaseError(Code.E_EMPTY_FILE, path, "0 bytes; copy or export the file again")
    return handle


def within_root(path: Path, root: Path) -> Path:
    """The path with its links resolved, when that lies under ``root``.

    Raises:
        CaseError: E_OUTSIDE_ROOT.
    """
    try:
        real, folder = path.resolve(), root.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a NUL
        file_kind(path)
        raise CaseError(Code.E_NOT_FOUND, path, "the path cannot be resolved; check its links") from None
    if not real.is_relative_to(folder):
        raise CaseError(
            Code.E_OUTSIDE_ROOT,
            path,
            "lies outside the manifest's folder, or a link leads out of it; copy the scan there",
        )
    return real


def check_size(path: Path, shape: Sequence[int], bytes_per_voxel: int, limits: Limits) -> list[Warning]:
    """Refuse, before anything is allocated, a size in the header that is beyond the limits.

    Raises:
        CaseError: E_TOO_LARGE.
    """
    voxels = math.prod(int(length) for length in shape)
    size = " x ".join(str(length) for length in shape)
    if voxels > limits.max_voxels:
        raise CaseError(
            Code.E_TOO_LARGE, path, f"the header claims {size} voxels, above limits.max_voxels ({limits.max_voxels})"
        )
    if voxels * bytes_per_voxel > limits.max_bytes:
        raise CaseError(
            Code.E_TOO_LARGE,
            path,
            f"the header claims {voxels * bytes_per_voxel} bytes, above limits.max_bytes ({limits.max_bytes})",
        )
    if 2 * voxels > limits.max_voxels:
        return [Warning(Code.W_LARGE, f"{size} voxels, more than half of limits.max_voxels ({limits.max_voxels})")]
    return []


def check_affine(path: Path, affine: Affine) -> list[Warning]:
    """Refuse an affine that does not determine where voxels lie.

    Args:
        path: named in errors.
        affine: (4, 4), stored voxel index → RAS+ world mm.

    Raises:
        CaseError: E_AFFINE, E_SPACING or E_ORIENTATION.
    """
    if not np.isfinite(affine).all():
        raise CaseError(
            Code.E_AFFINE, path, "the affine holds NaN or infinity; export the scan again with its geometry"
        )
    spacing = spacing_mm(affine)
    if max(spacing) == 0 or 0 in spacing:
        raise CaseError(
            Code.E_AFFINE, path, "a column of the affine is all zeros; export the scan again with its geometry"
        )
    if min(spacing) < SMALLEST_SPACING_MM or max(spacing) > LARGEST_SPACING_MM:
        raise CaseError(
            Code.E_SPACING,
            path,
            f"voxel spacing {_text(spacing)} mm, expected {SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g} mm; "
            "check the units of the header",
        )
    if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        raise CaseError(
            Code.E_AFFINE,
            path,
            f"the origin lies {np.abs(affine[:3, 3]).max():.3g} mm away; expected < {_FARTHEST_MM:g}",
        )
    directions = affine[:3, :3] / np.array(spacing)
    if abs(np.linalg.det(directions)) < 0.1:
        raise CaseError(Code.E_AFFINE, path, "the axes of the affine lie almost in one plane; export the scan again")
    nearest_axes(affine, path)
    if is_tilted(affine):
        degrees = math.degrees(math.asin(min(_shear(affine), 1.0)))
        if degrees > _MOST_TILT_DEGREES:
            reason = f"axes {degrees:.1f} degrees from a right angle, expected at most {_MOST_TILT_DEGREES:g}"
            raise CaseError(Code.E_AFFINE, path, f"{reason}; export the scan again, or resample it")
        return [Warning(Code.W_SHEAR, f"axes {degrees:.1f} degrees from a right angle, as after a gantry tilt")]
    return []


def _shear(affine: Affine) -> float:
    """Largest cosine between two of the axes: the sine of their deviation from a right angle."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def is_tilted(affine: Affine) -> bool:
    """Whether two axes deviate by more than half a degree from a right angle, as after a gantry tilt."""
    return _shear(affine) > _SHEAR_NOTICED


def right_angles(affine: Affine) -> NDArray[np.float64]:
    """The three perpendicular directions nearest to the axes, as columns; a tilt is split evenly between them.

    Source: orthogonal Procrustes problem, Schönemann, 1966.
    """
    left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    turned: NDArray[np.float64] = left @ right
    return turned


def nearest_axes(affine: Affine, path: Path | str = "affine") -> tuple[tuple[int, int], ...]:
    """For R, A and S in turn: the stored axis that runs nearest to it, and the sign (+1 or -1) in which it does.

    The assignment is the best one as a whole, so that it does not depend on the order in which axes are stored
    (nibabel's goes axis by axis, and can differ for images turned by about 45 degrees).

    Raises:
        CaseError: E_ORIENTATION, when two assignments are equally near.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    orders = list(itertools.permutations(range(3)))
    nearness = [sum(abs(directions[world, stored]) for world, stored in enumerate(order)) for order in orders]
    ranked = np.argsort(nearness)[::-1]
    if nearness[ranked[0]] - nearness[ranked[1]] < _AXES_MARGIN:
        raise CaseError(
            Code.E_ORIENTATION,
            path,
            "the image is turned by 45 degrees, so that no axis is nearest to R, A or S; resample it",
        )
    best = orders[ranked[0]]
    return tuple((stored, 1 if directions[world, stored] > 0 else -1) for world, stored in enumerate(best))


def _text(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
