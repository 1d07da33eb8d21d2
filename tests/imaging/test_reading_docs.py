"""The pages on reading say what the readers do: their suffixes, their codes, their words and their commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import Code
from pipeline.imaging.dicom.classes import no_image
from pipeline.imaging.dicom.frames import MARKS
from pipeline.imaging.kinds import SUFFIXES, foreign

DOCS = Path(__file__).parents[2] / "docs" / "explanation"
FORMATS, DICOM = ((DOCS / name).read_text() for name in ("reading-formats.md", "reading-dicom.md"))


def test_every_suffix_that_is_read_is_in_the_table() -> None:
    named = set(re.findall(r"`(\.[a-z0-9.]+)`", FORMATS))
    assert {suffix for suffixes in SUFFIXES.values() for suffix in suffixes} <= named


@pytest.mark.parametrize("page", [FORMATS, DICOM], ids=["formats", "dicom"])
def test_every_code_of_the_pages_exists(page: str) -> None:
    named = set(re.findall(r"\b[EW]_[A-Z_]+\b", page))
    assert named
    assert named <= {str(code) for code in Code}


@pytest.mark.parametrize(
    "head",
    [
        b"BZh9",
        b"\xfd7zXZ",
        b"\x28\xb5\x2f\xfd",
        b"PK\x03\x04",
        b"CDF\x01",
        b"GIF89a",
        b"# vtk DataFile",
        b"\x80\x04\x95",
    ],
)
def test_command_that_a_message_names_is_on_the_page(head: bytes) -> None:
    message = foreign(head + bytes(100), compressed=False)
    commands = re.findall(r"`([^`]+)`", FORMATS)
    assert any(command in message for command in commands), message


def test_words_for_skipped_objects_are_on_the_page() -> None:
    flat = DICOM.replace("\n", " ")
    for number in ("66.4", "88.11", "481.3", "11.1", "66.1", "104.1", "9.1.1", "66"):
        assert f"`{no_image(f'1.2.840.10008.5.1.4.1.1.{number}')}`" in flat
    assert f"`{no_image('1.2.840.10008.1.3.10')}`" in flat


def test_values_that_tell_volumes_apart_are_on_the_page() -> None:
    section = DICOM[DICOM.index("**Several volumes in one series.**") :]
    for word in MARKS:
        singular = {"echoes": "echo time and number", "echo times": "echo time"}.get(word, word.removesuffix("s"))
        assert singular in section, word
