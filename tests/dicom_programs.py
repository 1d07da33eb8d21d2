"""The programs and data by which archives' people check DICOM objects; a test that lacks one skips with a reason."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
    """What dicom-validator finds in an object, by an edition of the standard that lies on this machine."""
    pytest.importorskip("dicom_validator", reason="dicom-validator is not installed: pip install -e '.[dev]'")
    from dicom_validator.spec_reader.edition_reader import EditionReader
    from dicom_validator.validator.dicom_file_validator import DicomFileValidator
    from pydicom import dcmread

    editions = sorted(folder.name for folder in STANDARD.glob("20*") if (folder / "docbook" / "part03.xml").exists())
    if not editions:
        pytest.skip(f"no edition of the standard in {STANDARD}; `validate_iods FILE` downloads one")
    reader = EditionReader(STANDARD)
    reader.get_edition_path(editions[-1], recreate_json=False)
    info = reader.load_dicom_info(editions[-1])
    if dcmread(path, stop_before_pixels=True).SOPClassUID not in info.iods:
        pytest.skip(f"edition {editions[-1]} in {STANDARD} does not hold the object's class; it is not whole")
    (result,) = DicomFileValidator(info, logging.ERROR).validate(str(path)).values()
    return [] if result.errors == 0 else [str(result)]
