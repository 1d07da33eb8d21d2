"""All annotations of the named files and folders, each with the image that it names or that its name fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    LesionFormat,
    ReadingOptions,
    RefusedAnnotation,
    counted,
)
from pipeline.cases.lesions.names import Pairing, organ_of_mask, pair_markups, pair_masks
from pipeline.cases.lesions.read import lesion_format, read_lesions
from pipeline.cases.lesions.search import LesionFile, find_lesion_files
from pipeline.errors import CaseError, Code, TableError, UsageError
from pipeline.imaging.checks import file_kind
from pipeline.machine import usable_cores

_BY_NAME: Final[tuple[LesionFormat, ...]] = ("mask", "slicer-markups", "fcsv")


@dataclass(frozen=True)
class Collected:
    """Annotations of the named files and folders.

    Attributes:
        files: that were taken for annotations, without those of no known kind.
        annotations: of each file.
        others: files of searched folders that are no annotations, by suffix.
    """

    files: tuple[LesionFile, ...]
    annotations: tuple[Annotations, ...]
    others: Counter[str]


def collect_annotations(
    sources: Sequence[Path], images: ImageIndex, options: ReadingOptions, *, leave_out: Collection[Path] = ()
) -> Collected:
    """Read every annotation of files and folders; a file that cannot be read is refused, and the others are read.

    Masks and markups do not say which image they belong to: their names do (`pipeline.cases.lesions.names`), or there
    is only one image.

    Args:
        sources: files, and folders that are searched.
        images: of the input.
        options: for what the files leave unspecified.
        leave_out: files that are no annotations, as the manifest.

    Raises:
        UsageError: when a source does not exist.
    """
    files, unknown, others = _files(sources, images, options, leave_out)
    pairing = _pair(files, images)
    organs = _organs(files, pairing, images.root) if options.only is None else {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        lesion_files = [file for file in files if file.path not in organs]
        read = list(pool.map(lambda file: _read(file, pairing.get(file.path), images, options), lesion_files))
    refused = tuple(Annotations(refused=(RefusedAnnotation(error),)) for error in unknown)
    left = f"left out {counted(len(organs), 'mask')} of organs by name ({', '.join(sorted(set(organs.values())))})"
    notes = (Annotations(notes=(f"{left}; --only takes them by label",)),) if organs else ()
    return Collected(tuple(files), (*read, *refused, *notes), others)


def _files(
    sources: Sequence[Path], images: ImageIndex, options: ReadingOptions, leave_out: Collection[Path]
) -> tuple[list[LesionFile], list[CaseError], Counter[str]]:
    files: dict[Path, LesionFile] = {}
    unknown: list[CaseError] = []
    others: Counter[str] = Counter()
    at_hand = frozenset(path.resolve() for image in images.images for path in image.cases[0].files or (image.path,))
    for source in sources:
        try:
            is_folder = file_kind(source) == "folder"
        except CaseError as error:
            raise UsageError(f"{source}: {error.reason.replace('manifest', 'command')}") from None
        if is_folder:
            search = find_lesion_files(source, images=at_hand, leave_out=leave_out, limits=options.limits)
            others += search.others
            files |= {file.path.resolve(): file for file in search.files if file.path.resolve() not in files}
            continue
        try:
            kind = lesion_format(source, options.limits)
        except (CaseError, TableError) as error:
            unknown.append(CaseError(error.code, source, error.reason))
        else:
            files.setdefault(source.resolve(), LesionFile(source, kind, source.name))
    return list(files.values()), unknown, others


def _pair(files: Sequence[LesionFile], images: ImageIndex) -> dict[Path, IndexedImage | tuple[Code, str]]:
    """The image of each mask and markup file by its name, or why it has none."""
    by_name = {_relative(image.name, image.path, images.root): image for image in images.images}
    pairs: dict[Path, IndexedImage | tuple[Code, str]] = {}
    for kinds, pair in ((("mask",), pair_masks), (("slicer-markups", "fcsv"), pair_markups)):
        chosen = {_relative(file.name, file.path, images.root): file for file in files if file.format in kinds}
        pairing: Pairing = pair(list(by_name), list(chosen))
        pairs |= {chosen[name].path: by_name[image] for name, image in pairing.image_of.items()}
        for name, fitting in pairing.ambiguous.items():
            shown = ", ".join(repr(image) for image in fitting[:3])
            reason = f"its name fits {len(fitting)} images ({shown}{', ...' * (len(fitting) > 3)})"
            pairs[chosen[name].path] = Code.E_NOT_FOUND, f"{reason}; rename it after one, or give a table"
        reason = f"its name fits none of the {len(by_name)} images; name it after its image, or give a table"
        pairs |= {chosen[name].path: (Code.E_NOT_FOUND, reason) for name in pairing.alone}
    return pairs


def _organs(
    files: Sequence[LesionFile], pairing: Mapping[Path, IndexedImage | tuple[Code, str]], root: Path | None
) -> dict[Path, str]:
    """Masks of an organ by their names, with the organ."""
    organs = {}
    for file in files:
        image = pairing.get(file.path)
        if file.format == "mask" and isinstance(image, IndexedImage):
            names = _relative(file.name, file.path, root), _relative(image.name, image.path, root)
            if organ := organ_of_mask(*names):
                organs[file.path] = organ
    return organs


def _relative(name: str, path: Path, root: Path | None) -> str:
    """A file's or image's path relative to the images' folder; as it is named when it lies elsewhere."""
    part = f"#{name.rpartition('#')[2]}" if "#" in name else ""
    if root is not None and path.resolve().is_relative_to(root.resolve()):
        return f"{path.resolve().relative_to(root.resolve()).as_posix()}{part}"
    return PurePosixPath(name).name if PurePosixPath(name).is_absolute() else name


def _read(
    file: LesionFile, paired: IndexedImage | tuple[Code, str] | None, images: ImageIndex, options: ReadingOptions
) -> Annotations:
    """The annotations of one file; one that cannot be read as a whole is a refusal of its image."""
    reference = ImageReference()
    if isinstance(paired, IndexedImage):
        reference = ImageReference(image=paired.name)
    elif paired is not None and len(images.images) != 1:
        error = CaseError(paired[0], file.path, paired[1])
        return Annotations(refused=(RefusedAnnotation(error, format=file.format),))
    try:
        annotations = read_lesions(file.path, images=images, options=options)
    except (CaseError, TableError) as error:
        refusal = CaseError(error.code, file.path, error.reason)
        return Annotations(refused=(RefusedAnnotation(refusal, format=file.format, reference=reference),))
    except Exception as error:  # noqa: BLE001  # an internal error rejects this file, not the batch
        reason = f"{type(error).__name__} inside the program; please report it with this file"
        refusal = CaseError(Code.E_INTERNAL, file.path, reason)
        return Annotations(refused=(RefusedAnnotation(refusal, format=file.format, reference=reference),))
    return annotations.referring_to(reference) if file.format in _BY_NAME else annotations
