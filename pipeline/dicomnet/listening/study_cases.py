"""Make cases from the objects of a study: image series that the model can score, with their lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs
from pipeline.cases.lesions.dicom.dicom_object import annotation_format
from pipeline.cases.lesions.locate import DIAMETER, locate
from pipeline.config.inputs import Limits, Modality
from pipeline.errors import CaseError, Code, TableError
from pipeline.files import sha256_json
from pipeline.imaging.dicom.header import read_header

_ANY: Final = ("other", "mask")  # modalities of models without a DICOM term


class LesionDetector(Protocol):
    """A detector of lesions."""

    @property
    def digest(self) -> str:
        """Of the detector."""
        ...

    def search(self, scans: Sequence[Case]) -> list[list[Case]]:
        """The cases of each scan: one a lesion, or one with the reason why there is none."""
        ...


@dataclass(frozen=True)
class SeriesCases:
    """One image series and its cases.

    Attributes:
        series: digest of its UID.
        files: its objects.
        cases: one a lesion, or one for the whole image; faults among them.
        detector: digest of the detector that is to find its lesions, because none is marked; blank for none.
    """

    series: str
    files: tuple[Path, ...]
    cases: tuple[Case, ...]
    detector: str = ""

    @property
    def digest(self) -> str:
        """Digest of the images and lesions, by which a repeated scoring is recognised.

        A detector's lesions follow from the images and the detector, so its digest is used without a search.
        """
        if self.detector:
            return sha256_json([sorted(path.name for path in self.files), self.detector])
        cases = [
            [case.case_id, case.center_mm, case.extra.get(DIAMETER, ""), case.fault and case.fault.code]
            for case in self.cases
        ]
        return sha256_json([sorted(path.name for path in self.files), cases])

    @property
    def is_unmarked(self) -> bool:
        """Whether it only lacks a lesion."""
        return all(case.fault is not None and case.fault.code == Code.E_CENTER_MISSING for case in self.cases)


def cases_of_study(
    root: Path,
    series: dict[str, tuple[Path, ...]],
    *,
    modality: Modality,
    region: str,
    detector: str = "",
) -> list[SeriesCases]:
    """The image series of a study that a model may score, each with its cases.

    Series of another modality, and objects that are no images, are left out.

    Args:
        root: folder of all accepted objects.
        series: objects by the digest of their series.
        modality: of the model.
        region: of its preprocessing.
        detector: digest of the detector that searches the series that no annotation marks; blank for none.
    """
    images: dict[str, tuple[Path, ...]] = {}
    annotations: list[Path] = []
    for name, paths in series.items():
        kind = _kind(paths, modality)
        if kind == "annotation":
            annotations += paths
        elif kind == "image":
            images[name] = paths
    scans = [Case(case_id=name, image=name, path=paths[0].parent, files=paths) for name, paths in images.items()]
    if region != "lesion" or not scans:
        cases: Sequence[Case] = scans
    else:
        cases = _located(root, scans, annotations)
    by_series = [
        SeriesCases(name, images[name], tuple(case for case in cases if case.image == name)) for name in images
    ]
    return [
        replace(series, cases=(scan,), detector=detector) if detector and series.is_unmarked else series
        for series, scan in zip(by_series, scans, strict=True)
        if series.cases
    ]


def _located(root: Path, scans: Sequence[Case], annotations: Sequence[Path]) -> Sequence[Case]:
    try:
        return locate(Inputs(lambda _: scans, str(root), root), annotations).cases
    except TableError as error:
        fault = CaseError(error.code, root, error.reason)
        return [Case(scan.case_id, scan.image, scan.path, files=scan.files, fault=fault) for scan in scans]


def _kind(paths: Sequence[Path], modality: Modality) -> str:
    """``image``, ``annotation`` or ``other``, by the first object whose header can be read."""
    only_scouts = False
    for path in paths:
        try:
            if annotation_format(path, Limits()) is not None:
                return "annotation"
            header = read_header(path, limits=Limits())
        except CaseError:
            continue
        if header.word is not None or not header.claims_pixels:
            return "other"
        if modality not in _ANY and header.modality not in (modality, None):
            return "other"
        if not (header.frames and all(frame.localizer for frame in header.frames)):
            return "image"
        only_scouts = True
    return "other" if only_scouts else "image"  # its reader reports why no header can be read
