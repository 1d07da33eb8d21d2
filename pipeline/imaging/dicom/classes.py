"""Tell DICOM objects that are no images by their SOP class.

Archives and scanners export reports, plans, annotations and indexes beside the slices. They are recognised by their
class, never by their name: some exporters call the media directory ``DIRFILE``. Segmentations and dose grids have
pixels but are no scans; they are read only where one is named as the scan.
"""

from __future__ import annotations

from typing import Final

MEDIA_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_SEGMENTATION, _RADIOTHERAPY = "DICOM segmentation", "DICOM radiotherapy object"
_EYE, _PROTOCOL, _TEMPLATE = "DICOM eye measurement", "DICOM protocol", "DICOM template"
# A class of the standard's storage classes, or, ending in a dot, all that begin so.
_WORDS: Final = {
    "8": "DICOM overlay",
    "9": "DICOM curve",
    "9.": "DICOM waveform",
    "10": "DICOM presentation state",
    "11": "DICOM presentation state",
    "11.": "DICOM presentation state",
    "4.2": "DICOM spectrum",
    "66": "DICOM raw data",
    "66.1": "DICOM registration",
    "66.2": "DICOM registration",
    "66.3": "DICOM registration",
    "66.4": _SEGMENTATION,
    "66.5": _SEGMENTATION,
    "66.6": "DICOM tractography",
    "66.7": _SEGMENTATION,
    "67": "DICOM value mapping",
    "68.": "DICOM surface",
    "77.1.5.3": _EYE,
    "78.": _EYE,
    "79.": _EYE,
    "80.": _EYE,
    "88.": "DICOM report",
    "90.": "DICOM report",
    "91.": "DICOM annotation",
    "104.": "DICOM encapsulated document",
    "129": "DICOM curve",
    "131": "DICOM display",
    "200.": _PROTOCOL,
    "201.": "DICOM inventory",
    **{f"481.{number}": _RADIOTHERAPY for number in (*range(2, 23), 25)},  # 1, 23 and 24 are images
    "501.3": "DICOM report",
}
_OTHERS: Final = {
    MEDIA_DIRECTORY: "DICOMDIR",
    "1.2.840.10008.5.1.4.34.": _RADIOTHERAPY,
    "1.2.840.10008.5.1.4.38.": _PROTOCOL,
    "1.2.840.10008.5.1.4.39.": "DICOM palette",
    "1.2.840.10008.5.1.4.43.": _TEMPLATE,
    "1.2.840.10008.5.1.4.44.": _TEMPLATE,
    "1.2.840.10008.5.1.4.45.": _TEMPLATE,
    "1.3.12.2.1107.5.9.1": "DICOM raw data",  # Siemens, CSA non-image
    "1.3.46.670589.11.0.0.12.": "DICOM raw data",  # Philips, MR spectra, series data and examination cards
}
# What a detector measured: bright where much radiation arrived, and of another contrast than the image to look at.
FOR_PROCESSING: Final = frozenset(
    f"{_STORAGE}{number}" for number in ("1.1.1", "1.2.1", "1.3.1", "13.1.5", "14.2", "501.2.2")
)


def no_image(sop_class: str) -> str | None:
    """What an object is, in a word for counts, when its class is known to be no image; None for any other.

    An unknown class gives None too: such an object may be an image, and its reader reports what it lacks.
    """
    name = sop_class.removeprefix(_STORAGE)
    table = _OTHERS if name == sop_class else _WORDS
    if name in table:
        return table[name]
    return next((word for start, word in table.items() if start.endswith(".") and name.startswith(start)), None)
