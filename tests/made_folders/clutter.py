"""What lies about in real folders beside the scans: system files, documents, broken copies."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from made_folders.truth import LeftOut, Why
from made_folders.writing import packed_zip

_WORD_TYPES = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
    'content-types"><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_WORD_TEXT = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="http://schemas.openxmlformats.org/'
    'wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>Studienprotokoll V4</w:t></w:r></w:p></w:body></w:document>'
)
_COMPOUND_FILE = bytes.fromhex("d0cf11e0a1b11ae1")  # of Thumbs.db and .doc


def write_clutter(folder: Path, rng: np.random.Generator, *, beside: str) -> list[LeftOut]:
    """Write it, some beside a scan (a path relative to the folder, ``.nii.gz``) whose bytes a cut copy begins with."""
    place, name = beside.rsplit("/", 1)
    whole = (folder / beside).read_bytes()
    files: list[tuple[str, bytes, Why]] = [
        (".DS_Store", b"\0\0\0\1Bud1" + bytes(120), Why.SYSTEM_FILE),
        (f"{place}/.DS_Store", b"\0\0\0\1Bud1" + bytes(120), Why.SYSTEM_FILE),
        (f"{place}/._{name}", _apple_double(), Why.SYSTEM_FILE),
        (f"{place}/Thumbs.db", _COMPOUND_FILE + bytes(504), Why.SYSTEM_FILE),
        ("desktop.ini", "[.ShellClassInfo]\r\nIconIndex=4\r\n".encode("utf-16"), Why.SYSTEM_FILE),
        ("Protokoll V4 final.docx", _word(), Why.DOCUMENT),
        ("~$otokoll V4 final.docx", b"\x06Mustermann" + bytes(151), Why.DOCUMENT),
        ("Ethikvotum_unterschrieben.pdf", _pdf(), Why.DOCUMENT),
        (
            "alte Daten.zip",
            packed_zip({"alt/liesmich.txt": b"veraltet", "alt/Fall 001.nii.gz": whole[:2000]}),
            Why.DOCUMENT,
        ),
        ("LIESMICH.txt", "Bitte NICHT löschen! Fälle ab 100 folgen.\r\n".encode("cp1252"), Why.DOCUMENT),
        (f"{place}/Fall 777 leer.nii.gz", b"", Why.EMPTY),
        (f"{place}/Fall 778 abgebrochen.nii.gz", whole[: len(whole) * 2 // 3], Why.TRUNCATED),
        (f"{place}/{name}.part", whole[: int(rng.integers(500, 5000))], Why.TRUNCATED),
    ]
    for path, content, _ in files:
        (folder / path).write_bytes(content)
    return [LeftOut(path, why) for path, _, why in files]


def _apple_double() -> bytes:
    """macOS' companion of a file on a foreign disk: a header, and an empty resource fork."""
    return struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 1) + struct.pack(">III", 2, 38, 0)


def _word() -> bytes:
    return packed_zip({"[Content_Types].xml": _WORD_TYPES.encode(), "word/document.xml": _WORD_TEXT.encode()})


def _pdf() -> bytes:
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
        b"trailer<</Root 1 0 R>>\n%%EOF\n"
    )
