"""One image: its DICOM identifiers, and where its voxels and slices lie.

Only headers are read, and only when asked for: of a series the first file to know its UIDs, all files to know its
geometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.lesions.lesion import VoxelGrid
from pipeline.cases.lesions.shape import slice_axis
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import file_kind, within_root
from pipeline.imaging.dicom.frames import Frame
from pipeline.imaging.dicom.header import DicomFile, read_header
from pipeline.imaging.dicom.scan import DicomScan, is_nonempty_dicom
from pipeline.imaging.dicom.select import CODE_DIGITS, names_series
from pipeline.imaging.image import Scan
from pipeline.imaging.read import open_scan


@dataclass(frozen=True)
class SlicePlace:
    """One slice of a DICOM series: its header's frame, and its number along the stored third axis."""

    frame: Frame
    number: float


class IndexedImage:
    """One image, and the cases (rows) that name it.

    Args:
        cases: at least one, all of the same image.
        root: folder that the image may not leave; None for one scan named by the user.
        limits: of its reader.
    """

    def __init__(self, cases: Sequence[Case], root: Path | None, limits: Limits) -> None:
        self.cases = tuple(cases)
        self._root, self._limits = root, limits

    @property
    def name(self) -> str:
        """As the table or the search names it."""
        return self.cases[0].image

    @property
    def path(self) -> Path:
        """The file, or the folder of the series."""
        return self.cases[0].path

    @cached_property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series or file."""
        return self._first_header is not None

    @property
    def series(self) -> str | None:
        """SeriesInstanceUID; None for other formats, or when it cannot be read."""
        return self._first_header.series or None if self._first_header else None

    @property
    def frame_of_reference(self) -> str | None:
        """FrameOfReferenceUID; None for other formats, or when it cannot be read."""
        return self._first_header.frame_of_reference or None if self._first_header else None

    @cached_property
    def _first_header(self) -> DicomFile | None:
        """Of the first file that is an image and no segmentation; of the series that the case names, where it does."""
        series = self.cases[0].part
        for path in self._files():
            try:
                header = read_header(path, limits=self._limits)
            except CaseError:
                continue  # the image's reader reports its fault
            is_image = header.word is None and header.claims_pixels
            if is_image and (series is None or len(series) < CODE_DIGITS or names_series(series, header.series)):
                return header
        return None

    def _files(self) -> Iterator[Path]:
        """Its DICOM files that can be found."""
        case = self.cases[0]
        if case.fault is not None or case.url is not None:
            return
        if case.files is not None:
            yield from case.files
            return
        try:
            path = case.path if self._root is None else within_root(case.path, self._root)
            for file in sorted(path.rglob("*")) if file_kind(path) == "folder" else [path]:
                if file.is_file() and is_nonempty_dicom(file):
                    yield file
        except (CaseError, OSError):
            return

    @cached_property
    def _scan(self) -> Scan:
        case = self.cases[0]
        if case.fault is not None:
            raise case.fault
        if case.url is not None:
            reason = "lies behind a URL, so its geometry is not known here; name a copy on this machine"
            raise CaseError(Code.E_GEOMETRY_MISSING, case.image, reason)
        path = case.path if self._root is None else within_root(case.path, self._root)
        return open_scan(path, limits=self._limits, files=case.files, part=case.part)

    @property
    def grid(self) -> VoxelGrid:
        """Where its voxels lie.

        Raises:
            CaseError: as its reader does.
        """
        return VoxelGrid(self._scan.shape, self._scan.affine, has_millimetres=self._scan.has_millimetres)

    @property
    def across(self) -> int:
        """The stored axis across its slices."""
        return 2 if isinstance(self._scan, DicomScan) else slice_axis(self._scan.affine)

    @cached_property
    def slices(self) -> Mapping[tuple[str, int], SlicePlace]:
        """Its slices by SOPInstanceUID and number of the frame in the file, from 1; none for other formats.

        Raises:
            CaseError: as its reader does.
        """
        if not isinstance(self._scan, DicomScan):
            return {}
        return {
            (part.file.sop_instance, part.frame.index + 1): SlicePlace(part.frame, float(number))
            for number, part in enumerate(self._scan.slices)
        }
