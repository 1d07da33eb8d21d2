"""Cache of prepared inputs on disk: each scan is read and resampled once, and reused by later trainings.

One file an input, written whole or not at all, named by a digest of everything that decides what is in it: the scan's
place, the lesion's centre, the preprocessing, the code that does it and the versions of the libraries under it. The
voxels come first, so that they can be mapped instead of read: mapped pages belong to the system, which drops them when
memory is short, and all processes on a machine share them.

An entry is used when the scan looks as it did (size, times, inode of each file), or else when its bytes have the same
digest. Only a change whose size, times and inode were forged goes unnoticed.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isal import isal_zlib

from pipeline.cases.case import Case
from pipeline.cases.source_files import source_files
from pipeline.config.inputs import InputCache, Preprocessing
from pipeline.errors import Code
from pipeline.files import atomic_write, parse_json, private_folder, sha256_bytes, sha256_file, sha256_json
from pipeline.imaging.image import Float32Array, ScanFacts, Warning
from pipeline.imaging.preprocess import ModelInput

_SUFFIX = ".input"
FEATURES_SUFFIX = ".features"  # of an input's features by a frozen network; pipeline.training.features
_NAME = re.compile(r"[0-9a-f]{64}\.(input|features)")  # its folder's two digits first; nothing else is evicted
_FOOTER = struct.Struct("<4sIQ")  # mark, CRC-32 of voxels and facts, bytes of the facts
_MARK = b"MPI2"
_LIBRARIES = (
    "monai",
    "torch",
    "numpy",
    "scipy",
    "nibabel",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pillow",
)
FileStamps = list[list[int]]


@dataclass
class StoredInputs:
    """The cache for one preparation of cases; threads may share it.

    Attributes:
        config: folder and largest size.
        used: entries that were taken or written; they are never evicted from here.
        refused: inputs that found no room.
    """

    config: InputCache
    used: set[Path] = field(default_factory=set)
    refused: int = 0
    _bytes: int = 0
    _oldest: list[tuple[int, int, Path]] = field(default_factory=list)  # use, bytes; the oldest last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        private_folder(self.config.folder)  # voxels of patients
        entries = [
            (stat.st_mtime_ns, stat.st_size, path)
            for path in self.config.folder.glob("*/*")
            if _NAME.fullmatch(path.parent.name + path.name) and (stat := _stat(path))
        ]
        self._oldest = sorted(entries, reverse=True)
        self._bytes = sum(size for _, size, _ in entries)

    def place(self, case: Case, preprocessing: Preprocessing, *, modality: str) -> Path:
        """Path of a case's entry, whether it exists or not."""
        files = None if case.files is None else [str(path) for path in case.files]
        content = [
            preprocessing.model_dump(mode="json"),
            modality,
            reading_code(),
            str(case.path.absolute()),
            files,
            case.center_mm,
            case.part,
        ]
        name = sha256_json(content)
        return self.config.folder / name[:2] / f"{name[2:]}{_SUFFIX}"

    def find(self, case: Case, place: Path) -> ModelInput | None:
        """The stored input, mapped; None when there is none, it is damaged, or the scan has changed."""
        try:
            facts, voxels = _read(place)
        except (OSError, ValueError, KeyError):
            return None
        now = look(case)
        stored = _input(facts, voxels)
        if now is None:
            return None
        if now != facts["look"]:
            return self.keep(stored, place, now, case) if _same_bytes(case, facts) else None
        with suppress(OSError):  # evicted meanwhile; what is mapped stays
            os.utime(place)
        with self._lock:
            self.used.add(place)
        return stored

    def keep(self, model_input: ModelInput, place: Path, before: FileStamps, case: Case) -> ModelInput:
        """Store an input and return it mapped, or unchanged when there is no room or the scan changed meanwhile."""
        facts = {
            "measures": model_input.measures,
            "scan": asdict(model_input.scan),
            "warnings": [asdict(warning) for warning in model_input.warnings],
            "size": model_input.voxels.shape,
            "look": before,
        }
        text, voxels = json.dumps(facts).encode(), model_input.voxels.tobytes()
        footer = _FOOTER.pack(_MARK, isal_zlib.crc32(text, isal_zlib.crc32(voxels)), len(text))
        if look(case) != before or not self.write(place, voxels + text + footer):
            return model_input
        try:
            return _input(*_read(place))
        except (OSError, ValueError):
            self.refused += 1
            return model_input

    def write(self, place: Path, content: bytes) -> bool:
        """Write an entry, whole or not at all; False when there is no room for it."""
        if not self._make_room(len(content)):
            return False
        try:
            private_folder(place.parent)
            with atomic_write(place) as temporary:
                temporary.write_bytes(content)
        except OSError:
            self.refused += 1
            return False
        with self._lock:
            self.used.add(place)
        return True

    def report(self) -> None:
        """Warn when inputs had to stay in memory."""
        if self.refused:
            print(
                f"data.cache: {self.refused} inputs found no room in {self.config.folder} and stay in memory; "
                f"raise data.cache.max_gb ({self.config.max_gb:g}) or free space",
                file=sys.stderr,
            )

    def _make_room(self, size: int) -> bool:
        limit = self.config.max_gb * 1e9
        with self._lock:
            while self._bytes + size > limit and self._oldest:
                _, freed, path = self._oldest.pop()
                if path not in self.used:
                    path.unlink(missing_ok=True)
                    self._bytes -= freed
            if self._bytes + size > limit:
                self.refused += 1
                return False
            self._bytes += size
            return True


def look(case: Case) -> FileStamps | None:
    """Sizes, times and inodes of a case's files; None when one cannot be looked at."""
    try:
        stats = [path.stat() for path in source_files(case)]
    except (OSError, ValueError):
        return None
    return None if not stats else [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for stat in stats]


def _same_bytes(case: Case, facts: dict[str, Any]) -> bool:
    """Whether the one file of a case still has its digest; False for several, which cost as much to read again."""
    try:
        return case.files is None and case.path.is_file() and sha256_file(case.path) == facts["scan"]["digest"]
    except OSError:
        return False


def _read(path: Path) -> tuple[dict[str, Any], Float32Array]:
    """Facts and mapped voxels of an entry.

    Raises:
        ValueError: when it is damaged.
        OSError: when it cannot be read.
    """
    with open(path, "rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        handle.seek(max(end - _FOOTER.size, 0))
        footer = handle.read()
        if len(footer) != _FOOTER.size:
            raise ValueError("no footer")
        mark, crc, length = _FOOTER.unpack(footer)
        start = end - _FOOTER.size - length
        if mark != _MARK or start <= 0 or start % 4:
            raise ValueError("no entry of this version")
        handle.seek(start)
        text = handle.read(length)
    try:
        # Unlike NumPy's, this mapping holds no file descriptor, of which a process may have few.
        voxels = torch.from_file(str(path), shared=False, size=start // 4, dtype=torch.float32).numpy()
    except RuntimeError as error:  # more mappings than the system allows: vm.max_map_count
        if not (path.exists() and path.stat().st_size == end):
            raise ValueError("changed while it was read") from error
        voxels = np.fromfile(path, np.float32, start // 4)
    if isal_zlib.crc32(text, isal_zlib.crc32(voxels)) != crc:
        raise ValueError("checksum")
    facts = parse_json(text)
    return facts, voxels.reshape(facts["size"])


def _input(facts: dict[str, Any], voxels: Float32Array) -> ModelInput:
    scan = facts["scan"]
    return ModelInput(
        voxels=voxels,
        warnings=tuple(Warning(Code[warning["code"]], warning["detail"]) for warning in facts["warnings"]),
        measures=facts["measures"],
        scan=ScanFacts(
            digest=scan["digest"],
            shape=tuple(scan["shape"]),
            spacing_mm=None if scan["spacing_mm"] is None else tuple(scan["spacing_mm"]),
            orientation=scan["orientation"],
            modality=scan["modality"],
            body_part=scan["body_part"],
        ),
    )


@cache
def reading_code() -> str:
    """Digest of the code between a scan and its input: this package's imaging room, and the libraries' versions."""
    import pipeline.imaging

    sources = source_digest(Path(pipeline.imaging.__file__).parent)
    return sha256_bytes("\n".join([sources, *(f"{name} {_version(name)}" for name in _LIBRARIES)]).encode())


def source_digest(folder: Path) -> str:
    """Digest of the Python files under a folder, those of sub-packages included."""
    return sha256_bytes("\n".join(sha256_file(path) for path in sorted(folder.rglob("*.py"))).encode())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
