"""Which files are masks by their names, and which image each mask or markup file belongs to.

Names are relative paths with ``/`` between their parts, in any letter case. A name that fits several images, or none,
is reported; nothing is guessed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pipeline.imaging.scan_names import SCAN_SUFFIXES, scan_suffix

_MASK_FOLDERS: Final = frozenset({
    "mask", "masks", "label", "labels", "labelstr", "labelsts", "seg", "segs", "segmentation", "segmentations", "gt",
    "groundtruth", "ground_truth", "ground-truth", "annotation", "annotations", "roi", "rois", "lesion_masks",
})  # fmt: skip
_MASK_FOLDER_WORD: Final = re.compile(r"(?<![a-z])(masks?|segs?|segmentations?|ground[ _-]?truth)(?![a-z])")
_IMAGE_FOLDERS: Final = frozenset({
    "image", "images", "imagestr", "imagests", "img", "imgs", "scan", "scans", "volume", "volumes", "ct", "mr", "mri",
    "dicom", "nifti",
})  # fmt: skip
# As a word of its own anywhere in the name ...
_MASK_WORD: Final = re.compile(
    r"(?<![a-z])(masks?|segs?|segm|segmentations?|labels?|labelmap|ground[ _-]?truth)(?![a-z])"
)
# ... or only at its end: scans of tumours are called lesion_001, their masks scan_001_lesion.
_LAST_WORD: Final = re.compile(r"(?<=[ _.-])(lesions?|rois?|gt|annotations?)[ _.-]*\d{0,3}$")
_WHOLE_NAME: Final = re.compile(r"(lesions?|rois?|gt|annotations?)$")
_LEADING: Final = frozenset({"label", "labels"})  # before a scan's name they are no sign of a mask
_IMAGE_WORD: Final = re.compile(r"(?<![a-z])(image|img|imaging|volume|vol|scan|ct|mr|mri|us|orig|original)(?![a-z])")
_ORGANS: Final = frozenset({
    "airway", "airways", "aorta", "body", "bone", "bones", "brain", "brainmask", "breast", "breasts", "heart", "kidney",
    "kidneys", "liver", "lobe", "lobes", "lung", "lungs", "lungmask", "organ", "organs", "pancreas", "prostate",
    "skull", "spine", "spleen", "thorax", "trachea", "vessel", "vessels",
})  # fmt: skip
_LESIONS: Final = re.compile(r"lesion|tumou?r|nodule|cancer|gtv|metasta|mass(es)?(?![a-z])")
_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2"})
_VOLUMES: Final = frozenset({
    ".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".npy",
})  # fmt: skip
_MARKUP_SUFFIXES: Final = (".mrk.json", ".fcsv", ".json", ".xml", ".dcm")
_MARKUP_WORD: Final = re.compile(r"[ _.-]+(fiducials?|markups?|points?|lines?|f|l|r)[ _.-]*\d{0,3}$")
_BIDS_ENTITY: Final = re.compile(r"_(space|desc|res|den|label)-[a-z0-9]+")
_SEPARATORS: Final = " _.-"


@dataclass(frozen=True)
class Pairing:
    """Which image each mask or markup file belongs to, by names.

    Attributes:
        image_of: the image of each file that has one; several files may share an image.
        ambiguous: files that fit several images, with these.
        alone: files that fit none.
    """

    image_of: dict[str, str]
    ambiguous: dict[str, tuple[str, ...]]
    alone: tuple[str, ...]


def is_mask_name(name: str) -> bool:
    """Whether a file of this relative path is a mask by its name.

    ``x_mask.png``, ``x_mask_1.png``, ``x_seg.nii.gz``, ``x-label.nrrd``, ``x_lesion.nii.gz``, ``mask_x.png``,
    ``seg.nii.gz``, and every image in a folder ``masks``, ``labelsTr``, ``segmentations``, ``seg-lungs`` and the like.
    """
    path = PurePosixPath(name.lower())
    if any(_is_mask_folder(part) for part in path.parts[:-1]):
        return True
    stem = image_stem(path.name)
    word = _MASK_WORD.search(stem)
    if word is not None and (word.start() > 0 or word[1] not in _LEADING or word[0] == stem):
        return True
    return bool(_LAST_WORD.search(stem) or _WHOLE_NAME.match(stem))


def organ_of_mask(mask: str, image: str) -> str | None:
    """The organ that a mask is of, by a word of its path that its image's path has not; None for a lesion's mask.

    ``seg-lungs/x.mhd`` is the mask of lungs, and so is ``x_lung_mask.nii.gz``; ``labelsTr/lung_001.nii.gz`` is not,
    whose image is called so too, and neither is ``x_lung_tumour_mask.nii.gz``.
    """
    own = [word for word in _words(mask) if word not in _words(image)]
    if any(_LESIONS.search(word) for word in own):
        return None
    return next((word for word in own if word in _ORGANS), None)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.lower())


def _is_mask_folder(part: str) -> bool:
    return part in _MASK_FOLDERS or bool(_MASK_FOLDER_WORD.search(part))


def image_stem(name: str) -> str:
    """A scan's file name in lower case without the suffix of its format; other dots belong to the name."""
    name = name.lower()
    suffix = scan_suffix(name)
    return name.removesuffix(suffix) if suffix in SCAN_SUFFIXES else name


def pair_masks(images: Sequence[str], masks: Sequence[str]) -> Pairing:
    """Find the image of each mask.

    Tried in this order, among the images of the same folder first (folders such as ``images`` and ``masks`` aside),
    then among all; the first rule that leaves exactly one image decides:

    1. the same name without the word that makes it a mask, with or without nnU-Net's ``_0000``;
    2. the same name without the words ``image``, ``volume``, ``ct``, ...: ``volume-0`` and ``segmentation-0``;
    3. one of the image's folders has the name: ``masks/P1.nii.gz`` and ``P1/CT``;
    4. the name continues in words: ``sub-01_label-lesion_mask`` and ``sub-01_T1w``, or ``x_liver_mask`` and ``x``;
    5. a mask without any other name (``seg.nii.gz``) belongs to the only image of its folder.

    Args:
        images: relative paths; of a DICOM series its folder, with or without ``#`` and what follows.
        masks: relative paths.
    """
    return _pair(images, masks, _mask_key)


def pair_markups(images: Sequence[str], files: Sequence[str]) -> Pairing:
    """Find the image of each markup file, as `pair_masks`; any markup file may belong to its folder's only image."""
    return _pair(images, files, _markup_key, only_image_of_folder=True)


def _pair(
    images: Sequence[str], files: Sequence[str], key_of: Callable[[str], str], *, only_image_of_folder: bool = False
) -> Pairing:
    names = _ImageNames(images)
    pairs: dict[str, str] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    alone = []
    for file in files:
        fitting = names.fitting(file, key_of(file), only_image_of_folder=only_image_of_folder)
        if len(fitting) == 1:
            pairs[file] = fitting[0]
        elif fitting:
            ambiguous[file] = fitting
        else:
            alone.append(file)
    return Pairing(pairs, ambiguous, tuple(alone))


class _ImageNames:
    """Images by their names in several forms."""

    def __init__(self, images: Sequence[str]) -> None:
        self._same: dict[str, list[str]] = defaultdict(list)
        self._bare: dict[str, list[str]] = defaultdict(list)
        self._above: dict[str, list[str]] = defaultdict(list)
        self._in_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._stems = {image: image_stem(_path(image).name) for image in images}
        self._folders = {image: _folder(image) for image in images}
        for image, stem in self._stems.items():
            for name in {stem, stem.removesuffix("_0000")}:
                self._same[name].append(image)
            self._bare[_without(_IMAGE_WORD, stem)].append(image)
            for part in set(_path(image).parent.parts):
                self._above[part].append(image)
            folder = self._folders[image]
            for depth in range(len(folder) + 1):
                self._in_folder[folder[:depth]].append(image)

    def fitting(self, file: str, key: str, *, only_image_of_folder: bool) -> tuple[str, ...]:
        """The images that fit best; one when the name decides."""
        folder = _folder(file)
        several: tuple[str, ...] = ()
        for by_name in self._candidates(key, folder, only_image_of_folder=only_image_of_folder):
            candidates = [image for image in by_name if _of_one_kind(file, image)]
            near = [image for image in candidates if self._folders[image] == folder]
            for fitting in (near, candidates):
                if len(fitting) == 1:
                    return (fitting[0],)
                several = several or tuple(fitting)
        return several

    def _candidates(self, key: str, folder: tuple[str, ...], *, only_image_of_folder: bool) -> Iterable[list[str]]:
        if key:
            yield self._same.get(key, [])
            yield self._bare.get(key, [])
            yield self._above.get(key, [])
            yield [image for image, stem in self._stems.items() if _continues(stem, key)]
            yield self._longest([image for image, stem in self._stems.items() if _continues_in_words(key, stem)])
        inside = self._in_folder.get(folder, [])
        if not key or only_image_of_folder:
            yield inside
        elif key.isdigit():  # mask1 beside ct
            yield [image for image in inside if not _without(_IMAGE_WORD, self._stems[image])]

    def _longest(self, images: list[str]) -> list[str]:
        length = max((len(self._stems[image]) for image in images), default=0)
        return [image for image in images if len(self._stems[image]) == length]


def _path(name: str) -> PurePosixPath:
    """Of an image, without the part of a file or folder that is chosen after a ``#``."""
    return PurePosixPath(name.rpartition("#")[0].lower() or name.lower())


def _folder(name: str) -> tuple[str, ...]:
    """The folders of a file, without those that only separate images from masks."""
    parts = _path(name).parent.parts
    return tuple(part for part in parts if part not in _IMAGE_FOLDERS and not _is_mask_folder(part))


def _of_one_kind(file: str, image: str) -> bool:
    """Whether a mask or markup file can be of an image: pictures have masks that are pictures, volumes all others."""
    kinds = [scan_suffix(_path(name).name) for name in (file, image)]
    if kinds[0] in _PICTURES:
        return kinds[1] not in _VOLUMES
    return kinds[1] not in _PICTURES or kinds[0] in (".tif", ".tiff")


def _mask_key(name: str) -> str:
    """A mask's name without the words that mark it as a mask."""
    stem = _BIDS_ENTITY.sub("", image_stem(_path(name).name))
    word = _MASK_WORD.search(stem)
    if word is None:
        stem = _LAST_WORD.sub("", stem).strip(_SEPARATORS)
        return "" if _WHOLE_NAME.match(stem) else stem
    before = stem[: word.start()].strip(_SEPARATORS)
    left = before or stem[word.end() :].strip(_SEPARATORS)
    return "" if _MASK_WORD.fullmatch(left) else left  # 3D Slicer's Segmentation.seg.nrrd has no other name


def _markup_key(name: str) -> str:
    stem = _path(name).name
    suffix = next((suffix for suffix in _MARKUP_SUFFIXES if stem.endswith(suffix)), "")
    stem = image_stem(stem.removesuffix(suffix))
    return _MARKUP_WORD.sub("", _LAST_WORD.sub("", stem).strip(_SEPARATORS))


def _without(word: re.Pattern[str], stem: str) -> str:
    return re.sub(r"[ _.-]{2,}", "_", word.sub("", stem)).strip(_SEPARATORS)


def _continues(longer: str, shorter: str) -> bool:
    """Whether a name is another one with more after it, behind a separator."""
    return longer.startswith(shorter) and not longer[len(shorter) : len(shorter) + 1].isalnum() and longer != shorter


def _continues_in_words(longer: str, shorter: str) -> bool:
    """The same without a digit in what follows, which would be another scan's number."""
    return bool(shorter) and _continues(longer, shorter) and not any(c.isdigit() for c in longer[len(shorter) :])
