"""Structured reports of scored series, read back by highdicom and by the programs that archives' people use."""

import shutil
import subprocess

import numpy as np
import pytest
from dicom_writing import write_series

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install -e '.[dicom]'")

from scored_series import CENTER_RAS, case_result, reported_model

from pipeline.dicomnet.results import result_objects, write_results
from pipeline.dicomnet.source_series import SourceSeries


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return SourceSeries.read(write_series(tmp_path_factory.mktemp("series") / "ct"), modality="CT")


def test_a_report_made_again_is_the_same_object(series):
    first = result_objects([case_result()], series, reported_model()).report
    second = result_objects([case_result()], series, reported_model()).report
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first == second


def test_highdicom_reads_back_the_probability_and_the_centre(series, tmp_path):
    import highdicom as hd

    paths = write_results(result_objects([case_result(probability=0.123456789)], series, reported_model()), tmp_path)
    report = hd.sr.srread(paths[-1])
    (group,) = report.content.get_planar_roi_measurement_groups()
    by_name = {measurement.name.meaning: measurement.value for measurement in group.get_measurements()}
    assert by_name["Probability of cancer"] == pytest.approx(0.123456789, abs=1e-12)
    np.testing.assert_allclose(group.roi.value[0], np.array(CENTER_RAS) * (-1, -1, 1), rtol=1e-6)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt-get install dicom3tools")
def test_dciodvfy_finds_no_error(series, tmp_path):
    for path in write_results(result_objects([case_result()], series, reported_model()), tmp_path):
        said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("Error", "Abort"))] == []
