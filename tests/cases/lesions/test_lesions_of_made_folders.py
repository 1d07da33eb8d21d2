"""Folders as hospitals and researchers have them: every lesion that a file states, where it truly is, and no other."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from made_folders import MAKERS

from pipeline.cases.inputs import read_inputs
from pipeline.cases.lesions.locate import locate

FORMATS = {
    "ct_xlsx_masks": {"mask"},
    "dicom_study_tree": {"dicom-seg", "dicom-sr", "rtstruct"},
    "luna16_like": {"luna16"},
    "slicer_session": {"fcsv", "mask", "slicer-markups"},
    "semicolon_export": {"table"},
    "mess": {"mask"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_lesion_that_a_file_states_is_found_and_no_other(name, tmp_path):
    made = MAKERS[name](tmp_path, cases=14)
    located = locate(read_inputs(tmp_path), [tmp_path])
    assert not located.match.homeless
    assert not located.match.refused
    found = defaultdict(list)
    for lesion in located.lesions:
        found[lesion.case.image.partition("#")[0]].append(lesion.case.center_mm)
    stated = {
        scan.path: sorted(lesion.center_mm for lesion in scan.lesions if lesion.stated_in)
        for scan in made.expected.scans
        if any(lesion.stated_in for lesion in scan.lesions)
    }
    assert found.keys() == stated.keys()
    for path, centers in stated.items():
        assert np.array(sorted(found[path])) == pytest.approx(np.array(centers), abs=0.01), path
    assert {lesion.lesion.format for lesion in located.lesions} == FORMATS[name]
