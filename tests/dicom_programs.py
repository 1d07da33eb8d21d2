"""The programs and data by which archives' people check DICOM objects; a test that lacks one skips with a reason."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag

STANDARD = Path(os.environ.get("DICOM_STANDARD", Path.home() / "dicom-validator"))


def program(name: str, package: str) -> str:
    """The path of a program, or a skipped test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return path


def dciodvfy_errors(path: Path) -> list[str]:
    """What dciodvfy calls an error in an object."""
    said = subprocess.run(
        [program("dciodvfy", "dicom3tools"), "-new", path], capture_output=True, text=True, check=False
    )
    lines = (said.stdout + said.stderr).splitlines()
    assert lines  # it names the class of every object
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def dsrdump(path: Path) -> str:
    """A structured report as dcmtk shows it."""
    said = subprocess.run([program("dsrdump", "dcmtk"), path], capture_output=True, text=True, check=True)
    assert "E: " not in said.stderr
    return said.stdout


def dicom_validator_errors(path: Path) -> list[str]:
    """What dicom-validator finds in an object, by the newest edition of the standard that it has downloaded here.

    Without one, by highdicom's tables of the standard, which hold modules and types but no conditions. What is required
    under a condition, or of one type of content item alone, is then not asked for; dciodvfy does.
    """
    pytest.importorskip("dicom_validator", reason="dicom-validator is not installed: pip install -e '.[dev]'")
    from dicom_validator.validator.dicom_file_validator import DicomFileValidator

    info = _downloaded_standard() or _standard_of_highdicom()
    assert dcmread(path, stop_before_pixels=True).SOPClassUID in info.iods
    (result,) = DicomFileValidator(info, logging.CRITICAL).validate(str(path)).values()
    found = result.module_errors or {}
    return [f"{module}: {tag}: {error}" for module, errors in found.items() for tag, error in errors.items()]


@cache
def _downloaded_standard():
    from dicom_validator.spec_reader.edition_reader import EditionReader

    editions = sorted(folder.name for folder in STANDARD.glob("20*") if (folder / "docbook" / "part03.xml").exists())
    if not editions:
        return None
    reader = EditionReader(STANDARD)
    reader.get_edition_path(editions[-1], recreate_json=False)
    return reader.load_dicom_info(editions[-1])


@cache
def _standard_of_highdicom():
    from dicom_validator.validator.dicom_info import DicomInfo
    from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map

    modules = {
        name: _attributes(rows, required=name != "sr-document-content")
        for name, rows in get_module_attribute_map().items()
    }
    content = modules["sr-document-content"][_tag("ContentSequence")]
    content["items"][_tag("ContentSequence")] = content  # a tree of any depth
    iods = {}
    for uid, iod in get_sop_class_iod_map().items():
        uses = {row["key"]: {"ref": row["key"], "use": row["usage"]} for row in get_iod_module_map()[iod]}
        iods[uid] = {"title": iod, "modules": uses, "group_macros": {}}
    return DicomInfo({}, iods, modules)


def _attributes(rows, *, required):
    """Attributes of a module by tag, those of a sequence's items within it."""
    attributes: dict = {}
    for row in rows:
        place = attributes
        for keyword in row["path"]:
            place = place.setdefault(_tag(keyword), {"name": keyword, "type": "3"}).setdefault("items", {})
        kind = row["type"] if required and row["type"] in ("1", "2") else "3"
        place.setdefault(_tag(row["keyword"]), {"name": row["keyword"]})["type"] = kind
    return attributes


def _tag(keyword: str) -> str:
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"({tag.group:04X},{tag.element:04X})"
