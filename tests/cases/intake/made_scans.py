"""Surveyed scans without files, for tests of what is decided from headers."""

from pathlib import Path

import numpy as np

from pipeline.cases.intake.scans import SurveyedScan
from pipeline.imaging.dicom.attributes import DicomAttributes


def scan(image, *, shape=(32, 32, 40), spacing=(1.0, 1.0, 2.0), origin=(0, 0, 0), modality=None, size=1000, **header):
    """A scan as its header describes it; ``header`` makes it a DICOM series."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    attributes = DicomAttributes(**header) if header else None
    files = (Path(image) / "1.dcm",) if header else None
    return SurveyedScan(
        image,
        Path(image),
        files,
        shape,
        affine,
        has_millimetres=True,
        modality=modality,
        attributes=attributes,
        bytes=size,
    )
