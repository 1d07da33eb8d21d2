"""Attributes in the header of a DICOM image beside its geometry: patient, scanner, reconstruction kernel.

The values are of patients and studies. They stay in memory, to join a table and to choose one series of a study, and
only those that cannot identify a person (sex, age, manufacturer, kernel, thickness) are ever written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.config.inputs import Limits
from pipeline.imaging.dicom.file import begin, opened, parse
from pipeline.imaging.dicom.values import number, raw, text, uid

_TAGS: Final = {
    "accession": 0x00080050,
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "description": 0x0008103E,
    "patient": 0x00100020,
    "sex": 0x00100040,
    "age": 0x00101010,
    "body_part": 0x00180015,
    "thickness": 0x00180050,
    "kernel": 0x00181210,
    "view": 0x00185101,
    "study": 0x0020000D,
    "series": 0x0020000E,
    "frame_of_reference": 0x00200052,
    "laterality": 0x00200060,
    "image_laterality": 0x00200062,
}
_AGE: Final = re.compile(r"(\d{1,3})([DWMY])")
_YEARS: Final = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class DicomAttributes:
    """One series' attributes; blank where the header has none.

    Attributes:
        patient, study, series, accession: ids, to join tables with; never printed.
        description: of the series; free text, never printed.
        frame_of_reference: UID.
        sex: ``M``, ``F`` or ``O``.
        age_years: at the study, as a number; blank without one.
        manufacturer: of the scanner, a single word.
        kernel: of the reconstruction (CT).
        thickness_mm: of the slices, as a number.
        view: side and projection of a radiograph, as ``L CC``.
        body_part: as examined.
    """

    patient: str = ""
    study: str = ""
    series: str = ""
    accession: str = ""
    description: str = ""
    frame_of_reference: str = ""
    sex: str = ""
    age_years: str = ""
    manufacturer: str = ""
    kernel: str = ""
    thickness_mm: str = ""
    view: str = ""
    body_part: str = ""


def read_attributes(path: Path, *, limits: Limits | None = None) -> DicomAttributes:
    """Read them from one file of a series.

    Raises:
        CaseError: when the file cannot be read.
    """
    with opened(path) as (handle, stamp):
        header, _ = parse(path, begin(path, handle, stamp, limits or Limits()), sorted(_TAGS.values()))

    def known(name: str) -> str:
        return _text(raw(header, _TAGS[name]))

    sex, thickness = known("sex").upper(), number(header, _TAGS["thickness"])
    return DicomAttributes(
        patient=known("patient"),
        study=uid(header, _TAGS["study"]),
        series=uid(header, _TAGS["series"]),
        accession=known("accession"),
        description=known("description"),
        frame_of_reference=uid(header, _TAGS["frame_of_reference"]),
        sex=sex if sex in ("M", "F", "O") else "",
        age_years=_years(known("age")),
        manufacturer=(known("manufacturer").replace(",", " ").split() or [""])[0].title(),
        kernel=text(header, _TAGS["kernel"]).split("\\")[0].strip(),
        thickness_mm=f"{thickness:g}" if thickness and thickness > 0 else "",
        view=" ".join(filter(None, (known("image_laterality") or known("laterality"), known("view")))),
        body_part=known("body_part").upper(),
    )


def _text(value: bytes) -> str:
    """An id or word in any character set, to be compared and never shown."""
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _years(age: str) -> str:
    match = _AGE.fullmatch(age.upper())
    return f"{int(match[1]) * _YEARS[match[2]]:.0f}" if match else ""
