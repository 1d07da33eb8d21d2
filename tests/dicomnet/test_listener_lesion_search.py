"""A detector in the listener."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from chest_scans import chest
from dicom_writing import ct_slice, save, write_series
from small_detectors import save_small_detector

from pipeline.cases.case import Case
from pipeline.dicomnet.listening.lesion_search import DetectorSearch
from pipeline.scoring.finding.golden_detector import add_golden_scans


@pytest.mark.slow
def test_candidates_of_a_series_are_cases_and_a_scan_that_cannot_be_searched_says_why(tmp_path):
    description = save_small_detector(tmp_path / "detector")
    add_golden_scans(tmp_path / "detector")
    voxels, affine = chest([((20.0, 10.0, 5.0), 8.0)])
    whole = tmp_path / "received" / "whole"
    for number in range(voxels.shape[2]):
        image = ct_slice(number % 16)
        image.Columns, image.Rows = voxels.shape[:2]
        image.PixelSpacing, image.SliceThickness = [1.5, 1.5], 2.0
        image.ImagePositionPatient = [-float(affine[0, 3]), -float(affine[1, 3]), float(affine[2, 3]) + 2.0 * number]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.9.1.{number}"
        image.InstanceNumber = number + 1
        image.PixelData = (np.maximum(voxels[:, :, number].T, -1024).astype(np.int32) + 1024).astype("<u2").tobytes()
        save(image, whole / f"{number:03d}.dcm")
    small = write_series(tmp_path / "received" / "small")
    scans = [
        Case(case_id=folder.name, image=folder.name, path=folder, files=tuple(sorted(folder.iterdir())))
        for folder in (whole, small)
    ]
    search = DetectorSearch(
        tmp_path / "detector", description, root=tmp_path / "received", workers=1, timeout_seconds=120.0
    )
    with closing(search):
        found, refused = search.search(scans)
    assert [case.fault for case in found] == [None] * 5
    assert [case.case_id for case in found] == [f"whole#{number}" for number in range(1, 6)]
    assert all(case.center_mm is not None and case.files == scans[0].files for case in found)
    assert [case.fault.code for case in refused] == ["E_OUT_OF_ENVELOPE"]
    assert refused[0].center_mm is None
