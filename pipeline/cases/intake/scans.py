"""Survey of the scans of a folder, from their headers; no voxel is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.intake.joining import ScanNames
from pipeline.cases.intake.names import parts
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes, sha256_file
from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.dicom.attributes import DicomAttributes, read_attributes
from pipeline.imaging.discovery.find import FoundScan, find_scans
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.imaging.image import Affine, spacing_mm
from pipeline.imaging.read import open_scan

_SIDES = frozenset("l r left right lcc rcc lmlo rmlo".split())  # noqa: SIM905


@dataclass(frozen=True, eq=False)
class SurveyedScan:
    """One scan that could be opened.

    Attributes:
        image: as a manifest in the searched folder names it.
        path: of the file, or of the folder of the series.
        files: of the series; None for a single file.
        shape: voxels along the stored axes.
        affine: (4, 4), stored voxel index → RAS+ world mm.
        has_millimetres: whether its spacing is known.
        modality: as the file declares it; None where it does not.
        attributes: of its DICOM header; None for other files.
        bytes: of its files together.
        copies: images that hold the same bytes; a table or a folder may speak of any of them.
    """

    image: str
    path: Path
    files: tuple[Path, ...] | None
    shape: tuple[int, int, int]
    affine: Affine
    has_millimetres: bool
    modality: str | None
    attributes: DicomAttributes | None
    bytes: int
    copies: tuple[str, ...] = ()

    @property
    def names(self) -> ScanNames:
        """Names that a table may use for it."""
        known = self.attributes
        ids = (
            {}
            if known is None
            else {name: getattr(known, name) for name in ("patient", "accession", "study", "series")}
        )
        return ScanNames(self.image, ids, self.copies)

    @property
    def side(self) -> str:
        """``L`` or ``R`` as its header or its name says, as a mammogram's ``LCC``; blank where neither does."""
        if self.attributes and self.attributes.view[:2] in ("L ", "R ", "L", "R"):
            return self.attributes.view[0]
        words = parts(self.names.stem)
        sides = {word[0].upper() for word in words if word in _SIDES}
        return sides.pop() if len(sides) == 1 else ""

    @property
    def is_flat(self) -> bool:
        """A picture or a single slice."""
        return 1 in self.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along R, A and S."""
        spacing, axes = spacing_mm(self.affine), nearest_axes(self.affine)
        r, a, s = (spacing[stored] for stored, _ in axes)
        return r, a, s

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along R, A and S."""
        r, a, s = (self.shape[stored] for stored, _ in nearest_axes(self.affine))
        return r, a, s

    @property
    def slice_spacing_mm(self) -> float:
        """Between slices: the largest of the three distances."""
        return max(spacing_mm(self.affine))

    @property
    def box_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner in RAS world mm."""
        corners = np.array(np.meshgrid(*([-0.5, length - 0.5] for length in self.shape))).reshape(3, -1)
        world = self.affine[:3, :3] @ corners + self.affine[:3, 3:]
        return world.min(axis=1), world.max(axis=1)

    def digest(self) -> str:
        """Hex SHA-256 of its bytes."""
        return sha256_bytes("".join(sorted(sha256_file(path) for path in self.files or (self.path,))).encode())


@dataclass(frozen=True)
class UnreadScan:
    """A file or series that looks like a scan and cannot be opened.

    Attributes:
        image: path relative to the folder.
        error: why.
    """

    image: str
    error: CaseError


def survey(folder: Path, *, skipped: SkippedCount | None = None) -> Iterator[SurveyedScan | UnreadScan]:
    """Open every scan of a folder, in the order of the search.

    Args:
        folder: searched with its subfolders.
        skipped: counts the files that are no scans.
    """
    limits = Limits()
    for candidate in find_scans(folder, skipped=skipped, limits=limits):
        if candidate.error:
            yield UnreadScan(candidate.name, candidate.error)
            continue
        try:
            image = _image(candidate, folder)
            _require_a_name_for_tables(image, candidate.name)
            scan = open_scan(candidate.path, limits=limits, files=candidate.files)
            yield SurveyedScan(
                image=image,
                path=candidate.path,
                files=candidate.files,
                shape=scan.shape,
                affine=scan.affine,
                has_millimetres=scan.has_millimetres,
                modality=scan.modality,
                attributes=read_attributes(candidate.files[0], limits=limits) if candidate.files else None,
                bytes=sum(path.stat().st_size for path in candidate.files or (candidate.path,)),
            )
        except CaseError as error:
            yield UnreadScan(candidate.name, error)


def _image(candidate: FoundScan, folder: Path) -> str:
    """How a manifest names it; a series of one file by that file, which is more specific than its folder."""
    if candidate.files is not None and len(candidate.files) == 1:
        return candidate.files[0].relative_to(folder).as_posix()
    return candidate.image(folder)


def _require_a_name_for_tables(image: str, shown: str) -> None:
    """Refuse a path that a row of a table cannot hold: its id is the path, and ids are printable text."""
    if not image.isprintable() or image != image.strip():
        raise CaseError(
            Code.E_CASE_ID,
            shown,
            "its name has a line break, a character that cannot be printed or bytes that are not UTF-8; rename it",
        )
