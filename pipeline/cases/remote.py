"""Inputs behind a URL (``s3://…``, or any other file system that fsspec knows): listed lazily, fetched one at a time.

A scan is copied to a temporary folder of the process that reads it, read there like any other, and removed. Side files
and slices of one case travel together. A part of a scan is named as on disk: ``s3://bucket/study#1a2b3c4d``.
A ``file://`` URL is the path in it, under the rules for paths.
"""

from __future__ import annotations

import errno
import os
import posixpath
import tempfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cases.case import Case, split_part
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.errors import CaseError, Code, PipelineError, UnfinishedError, UsageError
from pipeline.extras import install_hint
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.imaging.scan_names import PAIRS, SCAN_SUFFIXES, scan_suffix
from pipeline.imaging.side_files import side_file_names
from pipeline.redaction import redact

_LOCAL = ("file://", "local://")
_GONE = 404
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)


def is_url(source: object) -> bool:
    """Whether a source is a URL rather than a path."""
    return "://" in str(source)


def local_path(url: str) -> str | None:
    """The path in a ``file://`` URL; None for other URLs."""
    from fsspec.implementations.local import LocalFileSystem

    return str(LocalFileSystem._strip_protocol(url)) if url.startswith(_LOCAL) else None


def read_remote_manifest(url: str) -> Manifest | None:
    """The manifest at a URL, each of its cases with its own URL; None when the URL does not name a table.

    Raises:
        UsageError: when there is nothing at the URL, or no package for its protocol.
        TableError: when the manifest cannot be read.
    """
    system, path = _system(url)
    if posixpath.splitext(path)[1].lower() not in TABLE_SUFFIXES:
        return None
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / posixpath.basename(path)
        _fetch_file(system, path, local, url)
        manifest = read_manifest(local)
    parent = posixpath.dirname(url.rstrip("/"))
    return replace(manifest, cases=tuple(_below(case, parent) for case in manifest.cases))


def find_remote_cases(url: str) -> Case | Callable[[SkippedCount], Iterator[Case]]:
    """The scan at a URL, or a function that lists the scans below it.

    Of a prefix, each file with the suffix of a scan is a case, and so is each folder with ``.dcm`` files, as one
    series: to separate series, or to put one together from several folders, every slice would have to be fetched
    twice. Name them in a manifest where a folder holds several (``folder#1a2b3c4d``; the refusal names the codes).

    Raises:
        UsageError: when there is nothing at the URL, or no package for its protocol.
    """
    system, path = _system(url)
    try:
        with _reaching(url):
            base, part = split_part(path, system.exists)
            kind = "file" if part is not None else _kind(system, path)
    except PermissionError:
        raise UsageError(f"{url}: may not be read with these credentials; check them") from None
    if kind == "file":
        name = redact(posixpath.basename(path))
        return Case(case_id=name, image=redact(url), path=Path(posixpath.basename(base)), url=url)
    if kind is None:
        raise UsageError(f"{url}: no such manifest, folder or scan; check the URL and the credentials")
    return partial(_list_cases, system, path, url.rstrip("/"))


@contextmanager
def local_copy(case: Case) -> Iterator[Case]:
    """The case with its files on this machine while the block runs; the same case when they are already.

    Raises:
        CaseError: E_NOT_FOUND or E_PERMISSION when they cannot be fetched.
        UnfinishedError: when the server cannot be reached, or does not answer as it should.
    """
    if case.url is None:
        yield case
        return
    system, path = _system(case.url)
    with tempfile.TemporaryDirectory(prefix="scan-") as folder:
        try:
            with _reaching(case.url):
                path, part = split_part(path, system.exists)
                local = Path(folder) / (posixpath.basename(path) or "series")
                if _is_folder(system, path):
                    system.get(path.rstrip("/") + "/", str(local) + "/", recursive=True)
                else:
                    system.get_file(path, str(local))
                    _fetch_side_files(system, path, local)
        except FileNotFoundError:
            raise CaseError(Code.E_NOT_FOUND, case.image, "no such object; check the path in the manifest") from None
        except PermissionError:
            raise CaseError(Code.E_PERMISSION, case.image, "may not be read with these credentials") from None
        yield replace(case, path=local, url=None, part=part)


def _fetch_side_files(system: Any, path: str, local: Path) -> None:
    """Side files that the scan names; its reader reports those that are missing."""
    for name in side_file_names(local):
        source, target = posixpath.join(posixpath.dirname(path), name), local.parent / name
        if system.isfile(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(source, str(target))


def remote_look(url: str) -> str | None:
    """State of an object (its ETag, or size and time); None when it cannot be read."""
    system, path = _system(url)
    try:
        with _reaching(url):
            system.invalidate_cache()
            path, _ = split_part(path, system.exists)
            if _is_folder(system, path):
                return str([(item["name"], item["size"]) for item in system.ls(path, detail=True)])
            info = system.info(path)
    except (OSError, ValueError, UnfinishedError):
        return None
    stamps = [info.get(name) for name in ("ETag", "size", "LastModified", "mtime")]
    return str(stamps if "Last-Modified" not in info else [*stamps, info["Last-Modified"]])


def _is_folder(system: Any, path: str) -> bool:
    """Whether a path is a folder; False for web servers, where the scan itself would have to be fetched to know."""
    if scan_suffix(path) in SCAN_SUFFIXES and "http" in system.protocol:
        return False
    return bool(system.isdir(path))


def _kind(system: Any, path: str) -> str | None:
    """``file`` or ``directory``; None when there is nothing. On a web server everything counts as a file.

    Raises:
        Exception: of the protocol, when the server could not be asked.
    """
    try:
        return str(system.info(path)["type"])
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec raises FileNotFoundError for any failed request to a web server
        if "http" in system.protocol and cause is not None and _status(cause) != _GONE:
            raise cause from None
        return None


def _below(case: Case, parent: str) -> Case:
    """A manifest's case with the URL of its image, which must lie below the manifest."""
    path = posixpath.normpath(case.image)
    if path.startswith(("/", "..")):
        fault = CaseError(
            Code.E_OUTSIDE_ROOT, case.image, "leads out of the manifest's folder; name scans relative to the manifest"
        )
        return replace(case, fault=case.fault or fault, url=f"{parent}/{posixpath.basename(path)}")
    return replace(case, path=Path(path), url=f"{parent}/{path}")


def _list_cases(system: Any, path: str, base: str, skipped: SkippedCount) -> Iterator[Case]:
    """Cases of a prefix, one folder after the other in sorted order."""
    root = path.rstrip("/")
    waiting = [root]
    while waiting:
        current = waiting.pop()
        with _reaching(base):
            items = sorted(system.ls(current, detail=True), key=lambda item: str(item["name"]))
        waiting += [item["name"].rstrip("/") for item in reversed(items) if item["type"] == "directory"]
        files = [str(item["name"]) for item in items if item["type"] != "directory" and item["name"] != current + "/"]
        slices = {name for name in files if scan_suffix(name) in (".dcm", ".dicom", ".ima")}
        if slices:
            yield _case(current, root, base)
        for name in files:
            suffix = scan_suffix(name)
            if name in slices or _belongs_to_another(name, suffix, files):
                continue
            if suffix in SCAN_SUFFIXES:
                yield _case(name, root, base)
            else:
                skipped.by_suffix[suffix] += 1


def _belongs_to_another(name: str, suffix: str, files: Container[str]) -> bool:
    """Whether a file is half of a pair that another file stands for, or an array's sidecar; by its name."""
    stem = name.removesuffix(suffix)
    if suffix in PAIRS:
        return f"{stem}{PAIRS[suffix]}" in files
    wholes = {".json": (".npy",), ".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",)}.get(suffix, ())
    return any(f"{stem}{whole}" in files for whole in wholes)


def _case(path: str, root: str, base: str) -> Case:
    relative = path.removeprefix(root).lstrip("/")
    name = relative or posixpath.basename(root)
    return Case(case_id=name, image=name, path=Path(posixpath.basename(path)), url=f"{base}/{relative}".rstrip("/"))


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    if "::" in url and url.rpartition("::")[2].startswith((*_LOCAL, "/")):
        raise UsageError(f"{url}: a chain of protocols that ends on this machine; name the folder or scan itself")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(f"{url}: {error}; for s3://, {install_hint('s3')}") from None
    except ValueError as error:
        raise UsageError(f"{url}: {error}; expected a path, or a URL such as s3://bucket/manifest.csv") from None
    return system, path


def _fetch_file(system: Any, path: str, local: Path, url: str) -> None:
    try:
        with _reaching(url):
            system.get_file(path, str(local))
    except FileNotFoundError:
        raise UsageError(f"{url}: no such manifest; check the URL") from None
    except PermissionError:
        raise UsageError(f"{url}: may not be read with these credentials; check them") from None


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Separate errors of reaching a server from errors of what it holds.

    Raises:
        UnfinishedError: when the server cannot be reached, or does not answer as it should.
        FileNotFoundError: when it says that there is no such object.
        PermissionError: when it says that it may not be read.
    """
    try:
        yield
    except (PipelineError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # each protocol has exceptions of its own; errors of the local disk are not among them
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        status = _status(error)
        if status in (401, 403):
            raise PermissionError(status, "may not be read") from None
        number = error.errno if isinstance(error, OSError) else None
        cause = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None)
        says = f"the server says {status}" if status else cause or type(error).__name__
        raise UnfinishedError(
            f"{url}: cannot be reached ({says}); check the address, the network and the server, and run the same "
            "command again"
        ) from None


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None
