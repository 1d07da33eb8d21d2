"""The scored DICOM series: its patient context and images, whether or not it could be read as a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pipeline.cases.case import Point
from pipeline.config.inputs import Limits
from pipeline.dicomnet.objects.patient_context import read_context
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.header import DicomFile, read_header
from pipeline.imaging.dicom.scan import DicomScan, open_series, series_paths
from pipeline.imaging.dicom.select import names_series

LPS_TO_RAS = (-1.0, -1.0, 1.0)  # and back


@dataclass(frozen=True)
class SourceImage:
    """One slice: an object of its own, or a frame of a multi-frame object.

    Attributes:
        sop_class, sop_instance, series: UIDs.
        frame: its number, from 1; None for an object of one frame.
        position_mm: of the first pixel's centre, LPS mm; None when the header names none.
    """

    sop_class: str
    sop_instance: str
    series: str
    frame: int | None
    position_mm: Point | None


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """Source of result objects, beside the scores.

    Attributes:
        path: named in errors.
        study, series: UIDs; of several series, the first.
        frame_of_reference: UID, '' when the images name none, or several.
        modality: in the words of the configuration, None when absent.
        images: in order along the normal; as found where the series cannot be read as a scan.
        context: patient and study attributes; see `pipeline.dicomnet.objects.patient_context`.
        scan: None where the series cannot be read as a scan, as when a slice is missing.
    """

    path: Path
    study: str
    series: str
    frame_of_reference: str
    modality: str | None
    images: tuple[SourceImage, ...]
    context: Dataset = field(repr=False)
    scan: DicomScan | None = field(repr=False)

    @classmethod
    def read(
        cls,
        source: Path | Sequence[Path],
        *,
        limits: Limits | None = None,
        modality: str | None = None,
        part: str | None = None,
    ) -> SourceSeries:
        """Read the headers of a scored series; no pixel is decoded.

        Args:
            source: a folder, one file, or the files of one series, as a case names them.
            limits: what may be allocated.
            modality: the model's.
            part: which series of a folder, or which frame of a file.

        Raises:
            CaseError: when nothing there is DICOM, or it is of several patients or studies, so that no object can be
                filed with it.
        """
        limits = limits or Limits()
        try:
            scan = open_series(source, limits=limits, modality=modality, part=part)
        except CaseError as error:
            path, files = _readable(source, limits, part, error)
            return cls._of(path, files, [_image(file, None) for file in files], scan=None, limits=limits)
        files = list({id(image.file): image.file for image in scan.slices}.values())
        images = [_image(image.file, image.frame.index, image.frame.position) for image in scan.slices]
        return cls._of(scan.path, files, images, scan=scan, limits=limits)

    @classmethod
    def _of(
        cls,
        path: Path,
        files: Sequence[DicomFile],
        images: Sequence[SourceImage],
        *,
        scan: DicomScan | None,
        limits: Limits,
    ) -> SourceSeries:
        patients, studies = {file.patient for file in files}, {file.study for file in files}
        if len(patients) > 1 or len(studies) > 1:
            reason = (
                f"{len(patients)} patient ids in {len(studies)} studies; no one object can be filed with all of them"
            )
            raise CaseError(Code.E_MIXED_PATIENT, path, reason)
        if not all((*studies, *(image.sop_class and image.sop_instance and image.series for image in images))):
            reason = "has no study, series, class or instance UID, so no object can refer to it; export it again"
            raise CaseError(Code.E_FORMAT, path, reason)
        frames = {file.frame_of_reference for file in files}
        return cls(
            path=path,
            study=next(iter(studies)),
            series=images[0].series,
            frame_of_reference=next(iter(frames)) if len(frames) == 1 else "",
            modality=files[0].modality,
            images=tuple(images),
            context=read_context(files[0].path, limits=limits),
            scan=scan,
        )

    @property
    def objects(self) -> tuple[SourceImage, ...]:
        """One image of each object, in order; a multi-frame object occurs once."""
        return tuple({image.sop_instance: image for image in reversed(self.images)}.values())[::-1]

    def images_in(self, center_mm: Point, extent_mm: Point) -> tuple[SourceImage, ...]:
        """The slices that a box about a point reaches, and at least the one nearest to the point.

        Args:
            center_mm: RAS world mm.
            extent_mm: of the box along R, A and S.
        """
        if self.scan is None or any(image.position_mm is None for image in self.images):
            return self.images
        row, column = self.scan.affine[:3, 0], self.scan.affine[:3, 1]
        normal = np.cross(row, column) / np.linalg.norm(np.cross(row, column))
        positions = np.array([image.position_mm for image in self.images]) * LPS_TO_RAS
        distances = np.abs((positions - np.array(center_mm)) @ normal)
        reach_mm = float(np.abs(normal) @ np.array(extent_mm)) / 2
        reached = distances <= max(reach_mm, float(distances.min()))
        return tuple(image for image, is_reached in zip(self.images, reached, strict=True) if is_reached)


def _image(file: DicomFile, index: int | None, position: tuple[float, ...] | None = None) -> SourceImage:
    frame = index + 1 if index is not None and file.frame_count > 1 else None
    place = None if position is None else (position[0], position[1], position[2])
    return SourceImage(file.sop_class, file.sop_instance, file.series, frame, place)


def _readable(
    source: Path | Sequence[Path], limits: Limits, part: str | None, refusal: CaseError
) -> tuple[Path, list[DicomFile]]:
    """The images of a refused series whose headers can be read, or else all objects."""
    path, paths = series_paths(source)
    files = []
    for file_path in paths:
        try:
            files.append(read_header(file_path, limits=limits))
        except CaseError:
            continue
    named = [file for file in files if part is None or names_series(part, file.series)] or files
    images = [file for file in named if file.claims_pixels and file.word is None] or named
    if not images:
        raise refusal
    return path, images
