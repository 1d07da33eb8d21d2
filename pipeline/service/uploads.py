"""A request's body, streamed into its folder: a raw file, or the parts of a multipart body."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from pipeline.imaging.stored_names import base_name, stored_name, suffix_of
from pipeline.service.answers import TIMEOUT, TOO_LARGE, UNREADABLE, WRONG_TYPE, RequestError
from pipeline.service.settings import ServiceLimits
from pipeline.service.spool import RequestFolder

RAW_TYPES = (
    "application/octet-stream",
    "application/zip",
    "application/x-zip-compressed",
    "application/dicom",
    "application/gzip",
    "application/x-gzip",
    "application/x-nifti",
)
_MULTIPART = ("multipart/form-data", "multipart/related", "multipart/mixed")
_HEAD_BYTES = 544  # that tell what a file is


@dataclass
class Upload:
    """What a request holds.

    Attributes:
        fields: texts by name.
        files: as stored, in the order of the request.
        sent_names: of those of several files, what the client calls each, without folders.
        sent: how many files were sent; more than were stored where some are plainly no scans.
    """

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    sent_names: dict[Path, str] = field(default_factory=dict)
    sent: int = 0

    def add_field(self, name: str, value: bytes) -> None:
        """Keep a field.

        Raises:
            RequestError: 400 for a name that is there already, or a value that is not UTF-8.
        """
        if name in self.fields:
            raise RequestError(UNREADABLE, "a field is given twice; give each once")
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError:
            raise RequestError(UNREADABLE, "a field is not UTF-8; send it as UTF-8") from None


async def receive(request: Request, folder: RequestFolder, limits: ServiceLimits) -> Upload:
    """Read a body into its folder.

    Args:
        request: whose body nobody has read.
        folder: of the request.
        limits: of the request.

    Raises:
        RequestError: 400 for a body that cannot be read, 408 for a slow one, 413 for a large one, 415 for a content
            type that is no scan's, 503 when there is no room.
        ClientDisconnect: when the client has gone.
    """
    media, options = parse_options_header(request.headers.get("content-type", RAW_TYPES[0]))
    kind = media.decode("latin-1")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(WRONG_TYPE, "the body has a Content-Encoding; send it without one")
    upload = Upload()
    for name, value in request.query_params.multi_items():
        upload.add_field(name, value.encode())
    blocks = _blocks(request, limits)
    if kind in _MULTIPART:
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise RequestError(UNREADABLE, "the multipart body's Content-Type names no boundary; let the client set it")
        await _receive_parts(blocks, _Parts(upload, folder, limits), boundary)
        return upload
    if kind in RAW_TYPES or kind.startswith("image/"):
        await _receive_raw(blocks, upload, folder)
        return upload
    expected = f"multipart/form-data, image/… or one of {', '.join(RAW_TYPES)}"
    raise RequestError(WRONG_TYPE, f"this Content-Type is no scan's; expected {expected}")


async def _blocks(request: Request, limits: ServiceLimits) -> AsyncIterator[bytes]:
    """The body's blocks, in time and within the bound."""
    received, end = 0, time.monotonic() + limits.upload_seconds
    more = True
    while more:
        patience = min(limits.silence_seconds, end - time.monotonic())
        message = await _next_message(request, patience)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        block = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(block)
        if received > limits.upload_bytes:
            raise too_large(limits)
        if block:
            yield block


async def _next_message(request: Request, patience: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(patience):
            return await request.receive()
    except TimeoutError:
        raise RequestError(TIMEOUT, "the body comes too slowly; send it again") from None


def too_large(limits: ServiceLimits) -> RequestError:
    """The refusal of a body beyond the bound."""
    reason = f"the body is larger than {limits.upload_bytes} bytes; send one series, or crop the scan"
    return RequestError(TOO_LARGE, reason)


async def _receive_raw(blocks: AsyncIterator[bytes], upload: Upload, folder: RequestFolder) -> None:
    stored = folder.path / "raw"
    head = b""
    with folder.new_file(stored.name) as handle:
        async for block in blocks:
            if len(head) < _HEAD_BYTES:
                head += block[:_HEAD_BYTES]
            folder.write(handle, block)
    named = folder.path / f"{1:06d}{suffix_of(head)}"
    stored.rename(named)
    upload.files.append(named)
    upload.sent = 1


async def _receive_parts(blocks: AsyncIterator[bytes], parts: _Parts, boundary: bytes) -> None:
    with contextlib.closing(parts):
        try:
            parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
            async for block in blocks:
                parser.write(block)
        except FormParserError:
            raise RequestError(UNREADABLE, "the multipart body cannot be read; let a library write it") from None
    if not parts.ended:
        raise RequestError(UNREADABLE, "the multipart body ends before its last boundary; send it whole")


class _Parts:
    """Takes a multipart body's parts as the parser finds them.

    A part with a file name, or without a name, is a file; any other is a field.
    """

    def __init__(self, upload: Upload, folder: RequestFolder, limits: ServiceLimits) -> None:
        self.upload, self.ended = upload, False
        self._folder, self._limits = folder, limits
        self._field_bytes = 0
        self._header_name, self._header_value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name: str | None = None  # of a field
        self._value = bytearray()
        self._file: AbstractContextManager[BinaryIO] | None = None
        self._handle: BinaryIO | None = None

    def callbacks(self) -> dict[str, Any]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_text,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self._finish,
            "on_end": self._end,
        }

    def close(self) -> None:
        """Close the file of a part that was not finished."""
        if self._file is not None:
            self._file.__exit__(None, None, None)
            self._file = self._handle = None

    def _begin(self) -> None:
        self._headers = {}
        self._name, self._value = None, bytearray()
        self._header_name = self._header_value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        name, file_name = options.get(b"name"), options.get(b"filename")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise RequestError(UNREADABLE, "a part has a Content-Transfer-Encoding; send it as it is")
        if name is not None and file_name is None:
            self._name = name.decode("utf-8", "replace")
            return
        upload = self.upload
        upload.sent += 1
        if upload.sent > self._limits.files:
            raise RequestError(TOO_LARGE, f"more than {self._limits.files} files; send one series")
        sent_name = (file_name or b"").decode("utf-8", "replace")
        stored = stored_name(sent_name, upload.sent)
        if stored is None:
            return
        self._file = self._folder.new_file(stored)
        self._handle = self._file.__enter__()
        path = self._folder.path / stored
        upload.files.append(path)
        upload.sent_names[path] = base_name(sent_name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._handle is not None:
            self._folder.write(self._handle, memoryview(data)[start:end])
        elif self._name is not None:
            self._field_bytes += end - start
            if self._field_bytes > self._limits.field_bytes:
                raise RequestError(
                    TOO_LARGE, f"fields of more than {self._limits.field_bytes} bytes; send scans as files"
                )
            self._value += data[start:end]

    def _finish(self) -> None:
        if self._name is not None:
            self.upload.add_field(self._name, bytes(self._value))
        self.close()

    def _end(self) -> None:
        self.ended = True
