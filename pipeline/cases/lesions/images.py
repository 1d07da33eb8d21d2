"""Find which of the input's images an annotation belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import ImageReference
from pipeline.cases.lesions.names import image_stem
from pipeline.config.inputs import Limits
from pipeline.errors import Code
from pipeline.machine import usable_cores


@dataclass(frozen=True)
class Resolution:
    """Which image an annotation belongs to.

    Attributes:
        image: that it belongs to; None when it is missing or ambiguous.
        case: the row, when the annotation names it.
        error: why the annotation cannot be used on the image, or which image is missing.
    """

    image: IndexedImage | None = None
    case: Case | None = None
    error: tuple[Code, str] | None = None


class ImageIndex:
    """The images that annotations may belong to.

    Args:
        cases: of a manifest, a folder or one scan.
        root: folder that no image may leave.
        limits: of their readers.
    """

    def __init__(self, cases: Iterable[Case] = (), *, root: Path | None = None, limits: Limits | None = None) -> None:
        groups: dict[object, list[Case]] = defaultdict(list)
        for case in cases:
            groups[(case.image, case.path, case.files, case.part)].append(case)
        limits = limits or Limits()
        self.root = root
        self.images = tuple(IndexedImage(rows, root, limits) for rows in groups.values())
        self._case_ids = {case.case_id: (image, case) for image in self.images for case in image.cases}
        self._names = _by(self.images, lambda image: (image.name, image.path.as_posix()))
        self._stems = _by(self.images, lambda image: (image_stem(image.path.name),))
        self._patients = _by(self.images, _patients)

    @cached_property
    def _identified(self) -> tuple[IndexedImage, ...]:
        """All images, their first headers read."""
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(lambda image: image.is_dicom, self.images))
        return self.images

    @cached_property
    def _series(self) -> Mapping[str, list[IndexedImage]]:
        return _by(self._identified, lambda image: (image.series or "",))

    @cached_property
    def _frames_of_reference(self) -> Mapping[str, list[IndexedImage]]:
        return _by(self._identified, lambda image: (image.frame_of_reference or "",))

    def resolve(self, reference: ImageReference, *, dedicated: bool) -> Resolution:
        """Find the image that an annotation states; nothing is guessed.

        Args:
            reference: what the annotation states.
            dedicated: whether its file is about one image. With a single image it then belongs to that one,
                unless the two contradict each other. A row of a table of many images must name its own.
        """
        resolution = self._named(reference, dedicated=dedicated)
        if resolution.image is None:
            return resolution
        error = _contradiction(reference, resolution.image)
        if resolution.case is not None and reference.image is not None:
            named = self._names.get(reference.image) or self._stems.get(image_stem(Path(reference.image).name))
            if named and resolution.image not in named:
                error = Code.E_CASE_ID, "case_id and image name different scans; correct one of them"
        return Resolution(resolution.image, resolution.case, error)

    def _named(self, reference: ImageReference, *, dedicated: bool) -> Resolution:
        if reference.case_id is not None and reference.case_id in self._case_ids:
            image, case = self._case_ids[reference.case_id]
            return Resolution(image, case)
        ambiguous: tuple[list[IndexedImage], str] | None = None
        for candidates, shared in self._lookups(reference):
            if len(candidates) == 1:
                return Resolution(candidates[0])
            if candidates and ambiguous is None:
                ambiguous = candidates, shared
        if ambiguous is not None:
            return Resolution(error=_several(*ambiguous))
        if dedicated and len(self.images) == 1:
            return Resolution(self.images[0])
        return Resolution(error=self._missing(reference))

    def _lookups(self, reference: ImageReference) -> Iterable[tuple[list[IndexedImage], str]]:
        """The images that match each statement of the annotation, the most certain statement first."""
        if reference.case_id is not None:  # ids of a folder's scans are paths, while tables often hold the file's name
            yield self._stems.get(image_stem(reference.case_id), []), "that name"
        if reference.image is not None:
            yield self._names.get(reference.image, []), "that name"
            yield self._stems.get(image_stem(Path(reference.image).name), []), "that name"
        if reference.series is not None:
            yield self._series.get(reference.series, []), "its series"
            yield self._stems.get(reference.series.lower(), []), "that name"  # LUNA16 names its files so
        elif reference.frame_of_reference is not None:
            yield self._frames_of_reference.get(reference.frame_of_reference, []), "its frame of reference"
        if reference.patient is not None:
            yield self._patients.get(reference.patient, []), "that patient"

    def _missing(self, reference: ImageReference) -> tuple[Code, str]:
        count = f"{len(self.images)} images of the input" if len(self.images) != 1 else "image of the input"
        if reference.case_id is not None:
            return Code.E_CASE_ID, f"names a case that is none of the {count}; check its case_id"
        if reference.image is not None:
            return Code.E_NOT_FOUND, f"no image fits its name among the {count}; rename it or give a table"
        if reference.series is not None:
            return Code.E_MIXED_SERIES, f"refers to another series than the {count}; give the image that it was made on"
        if reference.frame_of_reference is not None:
            reason = f"refers to another frame of reference than the {count}; give the image that it was made on"
            return Code.E_AFFINE_DISAGREE, reason
        if reference.patient is not None:
            return Code.E_NOT_FOUND, f"names a patient of whom there is none among the {count}; check the column"
        return Code.E_NOT_FOUND, f"does not say which of the {count} it belongs to; name the image"


def _by(images: Iterable[IndexedImage], keys: Callable[[IndexedImage], Iterable[str]]) -> dict[str, list[IndexedImage]]:
    table: dict[str, list[IndexedImage]] = defaultdict(list)
    for image in images:
        for key in dict.fromkeys(key for key in keys(image) if key):
            table[key].append(image)
    return table


def _patients(image: IndexedImage) -> Iterable[str]:
    """The patient ids of its rows; without one the first folder of its path, where archives keep patients apart."""
    ids = [case.patient_id for case in image.cases if case.patient_id]
    folders = Path(image.name).parts
    return ids or (folders[:1] if len(folders) > 1 and not Path(image.name).is_absolute() else [])


def _several(images: Sequence[IndexedImage], shared: str) -> tuple[Code, str]:
    names = ", ".join(repr(image.name) for image in images[:3])
    reason = f"{len(images)} images have {shared} ({names}{', ...' * (len(images) > 3)}); give a table that names one"
    return Code.E_MIXED_SERIES, reason


def _contradiction(reference: ImageReference, image: IndexedImage) -> tuple[Code, str] | None:
    """Where the annotation's identifiers differ from those of the image; None where they agree."""
    if reference.series is not None and image.series is not None and reference.series != image.series:
        return Code.E_MIXED_SERIES, f"refers to another series than that of {image.name!r}; give its own image"
    stated, actual = reference.frame_of_reference, image.frame_of_reference
    if stated is not None and actual is not None and stated != actual:
        reason = f"refers to another frame of reference than that of {image.name!r}, so its place there is not known"
        return Code.E_AFFINE_DISAGREE, f"{reason}; give its own image"
    return None
