"""The clients that the page on serving shows, run as they stand there against a server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from dicom_writing import write_series
from shared_data import ROOT

PAGE = (ROOT / "docs" / "how-to" / "serving.md").read_text(encoding="utf-8")
CENTER = (-31.5, 12.0, 40.0)  # of the page's requests


@pytest.fixture
def here(tmp_path):
    """A folder with the files that the page names, their lesion where the page says."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = np.array(CENTER) - 16
    voxels = np.random.default_rng(0).normal(-850, 40, (16, 16, 16)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    write_series(tmp_path / "series")
    return tmp_path


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [code for name, code in found if name == language]


def shown(command, folder, **options) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_client_prints_a_probability(served, here):
    code = blocks("python")[0].replace("http://127.0.0.1:8000", served.url)
    probability, decision = shown([sys.executable, "-c", code], here).split()
    assert 0 < float(probability) < 1
    assert decision in ("positive", "negative")


def test_javascript_client_prints_a_probability(served, here):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    (here / "client.mjs").write_text(blocks("javascript")[0].replace("http://127.0.0.1:8000", served.url))
    assert 0 < float(shown([node, "client.mjs"], here)) < 1


def test_curl_lines_get_rows(served, here):
    if not (shutil.which("curl") and shutil.which("zip")):
        pytest.skip("no curl or no zip on this machine")
    one, several = (block.replace("http://127.0.0.1:8000", served.url) for block in blocks("")[1:3])
    assert "series.zip" in one
    assert "lesions" in several
    first = shown(["sh", "-c", one], here)
    assert first.count('"rows"') == 2  # of the file, and of the zipped series
    assert '"probability":0.' in first
    assert shown(["sh", "-c", several], here).count('"case_id"') == 2
