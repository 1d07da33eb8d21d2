"""Write files as real programs write them, with the same bytes each time."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK
from openpyxl import Workbook

from made_folders.geometry import Grid

_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def save_nifti(path: Path, voxels: npt.NDArray[np.generic], grid: Grid, *, description: str = "") -> Path:
    """NIfTI-1 as dcm2niix writes it: both forms set, millimetres; gzip by the suffix."""
    image = nib.Nifti1Image(voxels, grid.affine, dtype=voxels.dtype)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def save_mgz(path: Path, voxels: npt.NDArray[np.generic], grid: Grid) -> Path:
    """FreeSurfer's MGH format, packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.MGHImage(voxels, grid.affine.astype(np.float32)), path)
    return path


def save_with_itk(path: Path, voxels: npt.NDArray[np.generic], grid: Grid, *, packed: bool) -> Path:
    """MetaImage as ITK writes it; a packed ``.mhd`` has a ``.zraw`` beside it, another one a ``.raw``."""
    image = SimpleITK.GetImageFromArray(voxels.T)
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetOrigin(grid.lps[:3, 3].tolist())
    image.SetDirection((grid.lps[:3, :3] / grid.spacing_mm).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return path


def save_nrrd(
    path: Path, voxels: npt.NDArray[np.generic], grid: Grid, *, fields: Mapping[str, str] | None = None
) -> Path:
    """NRRD with gzip as 3D Slicer writes it; ``fields`` become ``key:=value`` lines."""
    kinds = {"int16": "short", "uint8": "unsigned char"}
    vectors = " ".join("(" + ",".join(f"{value:.9g}" for value in column) + ")" for column in grid.lps[:3, :3].T)
    origin = ",".join(f"{value:.9g}" for value in grid.lps[:3, 3])
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {kinds[str(voxels.dtype)]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, voxels.shape)),
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        *(["endian: little"] if voxels.dtype.itemsize > 1 else []),
        "encoding: gzip",
        f"space origin: ({origin})",
        *(f"{key}:={value}" for key, value in (fields or {}).items()),
    ]
    head = ("\n".join(lines) + "\n\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = voxels.astype(voxels.dtype.newbyteorder("<")).tobytes(order="F")
    path.write_bytes(head + gzip.compress(data, 6, mtime=0))
    return path


def save_workbook(path: Path, workbook: Workbook) -> Path:
    """An Excel file without the time of writing, which openpyxl puts into it and its zip."""
    buffer = io.BytesIO()
    workbook.save(buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(buffer) as written:
        parts = {name: written.read(name) for name in written.namelist()}
    core = "docProps/core.xml"
    parts[core] = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2024-03-14T09:21:00Z", parts[core])
    path.write_bytes(packed_zip(parts))
    return path


def packed_zip(parts: Mapping[str, bytes]) -> bytes:
    """A zip of named contents, all of one date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def save_table(
    path: Path,
    rows: Sequence[Sequence[object]],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    line_end: str = "\n",
    quote_all: bool = False,
) -> Path:
    """A text table; the first row is the header, None is a blank cell."""
    buffer = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().encode(encoding))
    return path
