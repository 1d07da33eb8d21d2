"""Files that belong to a scan beside the one that names it: voxels or header of a pair, an array's sidecar."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.imaging.volumes import metaimage, npy, nrrd

_PAIR = (".hdr", ".hdr.gz", ".img", ".img.gz")


def side_file_names(path: Path) -> list[str]:
    """Names, relative to the scan's folder, of other files that it may be read from; they need not be there.

    They follow from the suffix, and for ``.mhd`` and ``.nhdr`` from the header, the only file that is opened. Names
    that lead out of the folder are left out: the reader refuses them.
    """
    name = path.name.lower()
    try:
        if name.endswith(".mhd"):
            names = metaimage.metaimage_data_file_names(path, limits=Limits())
        elif name.endswith(".nhdr"):
            names = nrrd.nrrd_data_file_names(path, limits=Limits())
        elif name.endswith(".npy"):
            names = [npy.sidecar(path).name]
        elif name.endswith(_PAIR):
            stem = path.name.removesuffix(".gz")[:-4]
            names = [stem + end for end in _PAIR if stem + end != path.name]
        else:
            return []
    except (CaseError, OSError, ValueError):  # the reader reports the fault
        return []
    inside = (PurePosixPath(name) for name in names if name and "\0" not in name)
    return [str(name) for name in inside if not name.is_absolute() and ".." not in name.parts]


def side_files(path: Path) -> list[Path]:
    """The other files of a scan that are there, sorted."""
    return sorted(file for name in side_file_names(path) if (file := path.parent / name).is_file())
