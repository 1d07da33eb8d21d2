"""Match lesions to cases: the lesions of every image, and what has no counterpart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.cases.case import Case
from pipeline.cases.lesions.grids import grid_disagreement
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    Lesion,
    LesionFormat,
    RefusedAnnotation,
    SegmentLink,
    VoxelGrid,
    counted,
    stated_diameter,
)
from pipeline.errors import CaseError, Code

_TABLES: tuple[LesionFormat, ...] = ("luna16", "table", "voxel-table")
_SAME_MM = 1.0  # centres nearer than this are marks of one lesion in several files


@dataclass(frozen=True)
class LesionMatch:
    """Which lesions each case has.

    Attributes:
        lesions: by case_id, in the order of the sources; cases without one are not in it.
        refused: annotations that belong to a case and cannot be used, by case_id.
        homeless: lesions and annotations whose image is missing or ambiguous.
        notes: what was left out or decided, a line each.
    """

    lesions: Mapping[str, tuple[Lesion, ...]] = field(default_factory=dict)
    refused: Mapping[str, tuple[RefusedAnnotation, ...]] = field(default_factory=dict)
    homeless: tuple[RefusedAnnotation, ...] = ()
    notes: tuple[str, ...] = ()


def match_lesions(images: ImageIndex, annotations: Iterable[Annotations]) -> LesionMatch:
    """Assign every lesion to its case; an ambiguous lesion is refused with the reason.

    - The same place in several files of one image (centres within 1 mm) is one lesion; a stated diameter is kept.
    - A mask whose grid is not its image's is refused (E_AFFINE_DISAGREE), and so is what refers to another series
      (E_MIXED_SERIES) or frame of reference (E_AFFINE_DISAGREE) than its image's.
    - Where several rows name one image, only a case_id tells whose a lesion is.

    Args:
        images: of the input.
        annotations: of each file, in order.
    """
    files = list(annotations)
    matching = _Matching(images)
    pointers = []
    for file in files:
        for lesion in file.lesions:
            matching.place(lesion)
        pointers += [refused for refused in file.refused if refused.segment is not None]
        for refused in file.refused:
            if refused.segment is None:
                matching.place_refused(refused)
    matching.follow(pointers)
    notes = [note for file in files for note in file.notes]
    return matching.result(notes)


class _Matching:
    """Lesions assigned to cases so far."""

    def __init__(self, images: ImageIndex) -> None:
        self._images = images
        self._lesions: dict[str, list[Lesion]] = defaultdict(list)
        self._refused: dict[str, dict[tuple[str, Code, str], RefusedAnnotation]] = defaultdict(dict)
        self._homeless: list[RefusedAnnotation] = []
        self._repeated = 0
        self._near: list[str] = []

    def place(self, lesion: Lesion) -> None:
        """Assign a lesion to its case, or note why it has none."""
        blank = CaseError(Code.E_NOT_FOUND, lesion.source, "")
        refused = RefusedAnnotation(blank, lesion.name, lesion.format, lesion.reference)
        image, case, error = self._resolve(lesion.format, lesion.reference)
        if error is None and lesion.grid is not None and image is not None:
            error = _off_grid(lesion.grid, image)
        if error is not None or case is None:
            code, reason = error or (Code.E_NOT_FOUND, "belongs to no case")
            self._refuse(case, replace(refused, error=CaseError(code, lesion.source, reason)))
        else:
            self._add(case.case_id, lesion)

    def place_refused(self, refused: RefusedAnnotation) -> None:
        """Assign a refusal to the case of its annotation."""
        _, case, _ = self._resolve(refused.format, refused.reference)
        self._refuse(case, refused)

    def follow(self, pointers: Sequence[RefusedAnnotation]) -> None:
        """Let reports that point to a segment give it their diameter; those whose segment is not there are refused."""
        segments: dict[SegmentLink, list[tuple[str, int]]] = defaultdict(list)
        for case_id, lesions in self._lesions.items():
            for place, lesion in enumerate(lesions):
                if lesion.segment is not None:
                    segments[lesion.segment].append((case_id, place))
        for pointer in pointers:
            assert pointer.segment is not None
            marked = segments.get(pointer.segment, [])
            if not marked:
                self.place_refused(pointer)
            elif len(marked) == 1 and pointer.diameter_mm is not None:
                case_id, place = marked[0]
                try:
                    diameter = stated_diameter(pointer.diameter_mm, Path(pointer.error.path))
                except CaseError as error:
                    self.place_refused(replace(pointer, error=error))
                else:
                    lesion = self._lesions[case_id][place]
                    self._lesions[case_id][place] = replace(lesion, diameter_mm=diameter)

    def result(self, notes: Sequence[str]) -> LesionMatch:
        """Everything, frozen."""
        notes = [*notes]
        if self._repeated:
            notes.append(
                f"{counted(self._repeated, 'lesion')} left out that another file or row marks at the same place"
            )
        return LesionMatch(
            lesions={case_id: tuple(lesions) for case_id, lesions in self._lesions.items()},
            refused={case_id: tuple(refused.values()) for case_id, refused in self._refused.items()},
            homeless=tuple(self._homeless),
            notes=(*notes, *self._near),
        )

    def _resolve(
        self, kind: LesionFormat | None, reference: ImageReference
    ) -> tuple[IndexedImage | None, Case | None, tuple[Code, str] | None]:
        """The image and case that an annotation belongs to, or the error that refuses it."""
        dedicated = kind not in _TABLES or reference == ImageReference()
        resolution = self._images.resolve(reference, dedicated=dedicated)
        image, case, error = resolution.image, resolution.case, resolution.error
        if image is not None and case is None:
            if len(image.cases) == 1:
                return image, image.cases[0], error
            reason = f"{len(image.cases)} rows name {image.name!r}, so whose lesion it is is unknown"
            error = error or (Code.E_CASE_ID, f"{reason}; give a table with case_id")
        return image, case, error

    def _refuse(self, case: Case | None, refused: RefusedAnnotation) -> None:
        """Note a refusal; one reason counts once for all annotations of a file in one image."""
        if case is None:
            self._homeless.append(refused)
            return
        error = refused.error
        key = (str(error.path), error.code, error.reason)
        known = self._refused[case.case_id]
        earlier = known.get(key)
        known[key] = replace(refused, name=refused.name if earlier in (None, refused) else "")

    def _add(self, case_id: str, lesion: Lesion) -> None:
        for place, earlier in enumerate(self._lesions[case_id]):
            apart = float(np.linalg.norm(np.subtract(lesion.center_mm, earlier.center_mm)))
            same_file = earlier.source == lesion.source
            repeated_row = same_file and lesion.format in _TABLES and apart == 0
            if repeated_row or (not same_file and apart <= _SAME_MM):
                self._repeated += 1
                if earlier.diameter_mm is None:
                    self._lesions[case_id][place] = replace(earlier, diameter_mm=lesion.diameter_mm)
                return
            reach = max(lesion.diameter_mm or 0.0, earlier.diameter_mm or 0.0) / 2
            if not same_file and apart < reach:
                files = f"{earlier.source.name} and {lesion.source.name}"
                line = f"case {case_id!r}: lesions of {files} lie {apart:.2g} mm apart and count as two"
                self._near.append(f"{line}; if they are one, give only one of the files")
        self._lesions[case_id].append(lesion)


def _off_grid(grid: VoxelGrid, image: IndexedImage) -> tuple[Code, str] | None:
    try:
        reason = grid_disagreement(grid, image.grid)
    except CaseError:
        return None  # the image cannot be read, and its own row reports that
    return None if reason is None else (Code.E_AFFINE_DISAGREE, reason)
