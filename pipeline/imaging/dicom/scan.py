"""A DICOM image series as one checked scan: all headers first, then only the slices that are asked for.

- **Order** is that of the slice positions along the normal; file names and instance numbers play no part.
- **Values** are ``stored * slope + intercept`` with each slice's own rescale, of the stored bits alone; other bits that
  are set are left out, and flagged W_BITPIX once they have been read. CT and PET without a rescale are refused. Pixel
  padding keeps its value, as in other readers: no HU is invented for it, and the range rules see what is there.
- **MONOCHROME1** says how to display. For CT the value is a HU all the same and is kept; for any other modality it
  is mirrored within its stored bits, so that bright means what it means in MONOCHROME2. Both are flagged.
- **Colour**: ultrasound, radiographs and photographs with equal channels are the grey image they show, exactly;
  coloured ones are their luminance, flagged W_PHOTOMETRIC. Colour in CT, MR or PET is refused.
- **Digest**: SHA-256 of the sorted SHA-256 (hex, one a line) of the files' bytes, copies counted once, so that
  neither names nor order nor copies change it; of one frame among several, SHA-256 of that and ``#`` and its number.
- **Zero-filled slices** (a copy that broke off) are refused when slices around them are whole.

What cannot be found: uncompressed pixels, RLE, JPEG, JPEG-LS and JPEG 2000 carry no checksum, so damage that leaves the
lengths right and the codestream legal reads as other voxels. Slices missing at either end of a series, or evenly
throughout, leave no gap; the latter is flagged W_SPACING where thickness, declared spacing or numbering contradict.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes, sha256_file
from pipeline.imaging.checks import file_kind
from pipeline.imaging.dicom.file import is_dicom
from pipeline.imaging.dicom.header import DicomFile
from pipeline.imaging.dicom.pixels import Slice, Stored, read_frame
from pipeline.imaging.dicom.select import UNREADABLE, frame_number, read_headers, select_images
from pipeline.imaging.dicom.series import arrange
from pipeline.imaging.image import Affine, Box, Float32Array, Warning, part_digest
from pipeline.imaging.scan_names import may_be_slice

_MOST_ZEROS = 0.25  # share of a frame by which its zero end may exceed that of slices around it
_MOST_FILES = 50_000  # of one series; above it, the folder is not one


@dataclass(eq=False)
class DicomScan:
    """An opened series; see `pipeline.imaging.image.Scan`. Stored axes: column, row, slice.

    Attributes:
        has_millimetres: False for a radiograph, ultrasound image or photograph without a pixel spacing.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    has_millimetres: bool
    body_part: str | None
    _slices: tuple[Slice, ...] = field(repr=False)
    _limits: Limits = field(repr=False)
    _frame: int | None = field(default=None, repr=False)
    _digest: str | None = field(default=None, repr=False)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The slices in order along the normal, each with its file and frame."""
        return self._slices

    def read(self, box: Box) -> Float32Array:
        """Rescaled values of a box, float32, shape as the box; only slices in it are decoded.

        Raises:
            CaseError: E_SLICE_UNREADABLE, E_TRUNCATED, E_CODEC or E_NONFINITE.
        """
        columns, rows, numbers = (range(size)[part] for size, part in zip(self.shape, box, strict=True))
        voxels = np.empty((len(columns), len(rows), len(numbers)), dtype=np.float32)
        stray, coloured, zeros = 0, 0, []
        for place, number in enumerate(numbers):
            image = self._slices[number]
            frame = read_frame(image.file, image.frame.index, limits=self._limits)
            stray, coloured = stray + frame.stray_bits, coloured + frame.coloured
            zeros.append(_zeros_at_the_end(frame.values))
            values = image.rescale(frame.values[box[1], box[0]])  # (row, column)
            with np.errstate(over="ignore"):  # judged below
                voxels[:, :, place] = values.T
        if self.modality != "mask":  # slices of masks may be empty
            self._check_filled([self._slices[number] for number in numbers], np.array(zeros))
        if not np.isfinite(voxels).all():
            raise CaseError(Code.E_NONFINITE, self.path, "the rescale leads beyond float32; export the series again")
        if stray:
            detail = (
                f"bits are set beyond the stored ones in {stray} slices (overlays, or a wrong BitsStored); left out"
            )
            self._warn(Code.W_BITPIX, detail)
        if coloured:
            self._warn(Code.W_PHOTOMETRIC, "coloured; its luminance was taken")
        return voxels

    def _warn(self, code: Code, detail: str) -> None:
        """Add a warning once, however often voxels are read."""
        if not any((warning.code, warning.detail) == (code, detail) for warning in self.warnings):
            self.warnings += (Warning(code, detail),)

    def _check_filled(self, slices: Sequence[Slice], zeros: NDArray[np.float64]) -> None:
        """Refuse slices whose end is all zero bytes, as when a copy was broken off, between slices that are whole.

        Padding at the end of a series, or growing towards it as in a turned volume, is no such thing: some slice on
        either side must hold more.
        """
        if len(zeros) < 3:
            return
        before = np.minimum.accumulate(zeros)[:-2]
        after = np.minimum.accumulate(zeros[::-1])[::-1][2:]
        broken = np.flatnonzero(zeros[1:-1] - np.maximum(before, after) > _MOST_ZEROS)
        if broken.size:
            image, share = slices[broken[0] + 1], zeros[broken[0] + 1]
            reason = f"the last {share:.0%} of a slice's pixels are zero bytes, unlike its neighbours'; copy it again"
            raise CaseError(Code.E_SLICE_UNREADABLE, image.file.path, reason)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the series, computed once.

        Raises:
            CaseError: E_SLICE_UNREADABLE when a file changed since the series was opened.
        """
        if self._digest is None:
            files = {image.file.path: image.file for image in self._slices}
            self._digest = sha256_bytes("\n".join(sorted({_file_digest(file) for file in files.values()})).encode())
            if self._frame is not None:
                self._digest = part_digest(self._digest, self._frame)
        return self._digest


def open_series(
    source: Path | Sequence[Path], *, limits: Limits, modality: str | None = None, part: str | None = None
) -> DicomScan:
    """Open a series: read and check the headers of all its slices; no pixel is decoded.

    Args:
        source: a folder holding exactly one image series (subfolders included, links out of it refused, documents
            and non-image objects beside it ignored), the files of one series, or one file.
        limits: what may be allocated.
        modality: the declared one; ``CT`` makes a missing rescale an error whatever the file says.
        part: which series of a folder (eight hex digits or more of the SHA-256 of its UID, or the UID), or which frame
            of a file, from 1.

    Raises:
        CaseError: with the code of what is wrong.
    """
    path, paths = series_paths(source)
    one_file = isinstance(source, Path) and paths == [source]
    files = read_headers(paths, limits=limits, part=None if one_file else part)
    files = select_images(path, files, None if one_file else part)
    frame = frame_number(path, part, files[0]) if one_file and part else None
    series = arrange(path, files, limits=limits, modality=modality, frame=frame, digest=_file_digest)
    return DicomScan(
        path=path,
        shape=series.shape,
        affine=series.affine,
        modality=series.modality,
        warnings=series.warnings,
        has_millimetres=series.has_millimetres,
        body_part=series.body_part,
        _slices=series.slices,
        _limits=limits,
        _frame=frame if files[0].frame_count > 1 else None,
    )


def series_paths(source: Path | Sequence[Path]) -> tuple[Path, list[Path]]:
    """What to call the series in messages, and the files that may belong to it.

    Raises:
        CaseError: as `open_series` does for a place without files, or one that cannot be searched.
    """
    if not isinstance(source, Path):
        paths = list(source)
        if not paths:
            raise CaseError(Code.E_NO_IMAGES, "series", "an empty list of files; expected the slices of one series")
        return (paths[0].parent if len(paths) > 1 else paths[0]), paths
    if file_kind(source) == "file":
        return source, [source]
    paths = []
    for path in _walk(source):
        paths.append(path)
        if len(paths) > _MOST_FILES:
            raise CaseError(Code.E_MIXED_SERIES, source, f"over {_MOST_FILES} files; name the folder of one series")
    if not paths:
        raise CaseError(Code.E_NO_IMAGES, source, "holds no DICOM file; name a folder with one series")
    return source, paths


def _walk(folder: Path) -> Iterator[Path]:
    """Files that are, or by their name should be, DICOM.

    Raises:
        CaseError: E_PERMISSION, E_NOT_REGULAR for a pipe, E_OUTSIDE_ROOT for a link that leaves the folder.
    """
    root = folder.resolve()

    def refuse(error: OSError) -> None:
        raise CaseError(Code.E_PERMISSION, folder, f"a subfolder cannot be listed ({os.strerror(error.errno or 0)})")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in [*sorted(names), *(name for name in folders if (Path(parent) / name).is_symlink())]:
            path = Path(parent) / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise CaseError(Code.E_OUTSIDE_ROOT, path, "a link that leaves the folder of the series; copy the file")
            if not path.is_dir() and _belongs(path):
                yield path


def _belongs(path: Path) -> bool:
    return may_be_slice(path.name) or (path.is_file() and is_nonempty_dicom(path))


def is_nonempty_dicom(path: Path) -> bool:
    """Whether a regular file has the DICM mark; an empty or unreadable one has not."""
    try:
        return is_dicom(path)
    except CaseError as error:
        if error.code in UNREADABLE:
            return False
        raise


def _zeros_at_the_end(values: Stored) -> float:
    """Share of a frame's pixels that belong to one run of zeros up to the last of them."""
    nonzero = values.ravel()[::-1] != 0
    run = int(nonzero.argmax())
    return 1.0 if run == 0 and not nonzero[0] else run / nonzero.size


def _file_digest(file: DicomFile) -> str:
    try:
        status = file.path.stat()
        if (status.st_size, status.st_mtime_ns) == file.stamp:
            return sha256_file(file.path)
    except OSError:
        pass  # reported below
    raise CaseError(Code.E_SLICE_UNREADABLE, file.path, "changed while the series was being read; read it again")
