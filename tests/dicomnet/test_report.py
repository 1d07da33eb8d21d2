"""Structured reports of scored series, read back by highdicom and by the programs that archives' people use."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest
from dicom_programs import dciodvfy_errors, dicom_validator_errors, dsrdump
from dicom_writing import SERIES, write_multiframe, write_series
from scored_series import CENTER_RAS, case_result, reported_model

from pipeline import __version__
from pipeline.config.inputs import Zoom
from pipeline.dicomnet.objects.case_result import FindingResult, NamedDetector
from pipeline.dicomnet.objects.result_objects import result_objects, write_results
from pipeline.dicomnet.objects.source_series import SourceSeries
from pipeline.errors import CaseError

CENTER_LPS = np.array(CENTER_RAS) * (-1, -1, 1)
SEVERAL = (FindingResult("malignant", 0.25, "refer"), FindingResult("spiculated", 0.75, "positive"))
TWO_FINDINGS = reported_model(
    findings=("malignant", "spiculated"),
    operating_points=reported_model().operating_points * 2,
    refer_zone="0.2 to 0.4",
)
WHOLE_IMAGE = reported_model(region_mm=None)
DETECTOR = NamedDetector("finder@" + "ab" * 6, "ab" * 32)
KINDS = {
    "scored": ([case_result()], reported_model()),
    "two lesions and a refused one": (
        [
            case_result(),
            case_result(case_id="ct#2", center_mm=(0.0, 0.0, 0.0), diameter_mm=None),
            case_result(probability=None, case_id="ct#3", code="E_ROI_OUTSIDE", reason="the centre lies outside"),
        ],
        reported_model(),
    ),
    "refused": ([case_result(probability=None)], reported_model()),
    "flagged": ([case_result(status="flagged", code="W_PADDING", warnings="W_PADDING;W_SPACING")], reported_model()),
    "whole image": ([case_result(center_mm=None, diameter_mm=None)], WHOLE_IMAGE),
    "two findings": ([case_result(findings=SEVERAL)], TWO_FINDINGS),
    "found by a detector": ([case_result(lesion_probability=0.125, detector=DETECTOR)], reported_model()),
    "found by nobody knows what": ([case_result(lesion_probability=0.125)], reported_model()),
    "an ensemble": ([case_result()], reported_model(operating_points=(), name="a@0123456789ab+b@0123456789ab")),
}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return SourceSeries.read(write_series(tmp_path_factory.mktemp("series") / "ct"), modality="CT")


@pytest.fixture(scope="module")
def multiframe(tmp_path_factory):
    return SourceSeries.read(write_multiframe(tmp_path_factory.mktemp("series") / "ct.dcm"), modality="CT")


def written(kind, series, folder):
    return write_results(result_objects(KINDS[kind][0], series, KINDS[kind][1]), folder)


def read_back(path):
    """The report, by highdicom."""
    return hd.sr.srread(path).content


def values(items):
    return {item.name.meaning: item.value for item in items}


def texts(group):
    return [(item.name.meaning, item.value) for item in group[0].ContentSequence if item.ValueType == "TEXT"]


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(kind, series, multiframe, tmp_path):
    for number, source in enumerate((series, multiframe)):
        for path in written(kind, source, tmp_path / str(number)):
            assert dciodvfy_errors(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_dicom_validator_finds_no_error(kind, series, tmp_path):
    for path in written(kind, series, tmp_path):
        assert dicom_validator_errors(path) == []


def test_dsrdump_reads_it(series, tmp_path):
    shown = dsrdump(written("scored", series, tmp_path)[-1])
    assert 'NUM:(,,"Probability of cancer")="0.25"' in shown
    assert "SCOORD3D" in shown


def test_highdicom_reads_back_what_was_scored(series, tmp_path):
    result = case_result(probability=0.123456789012345678, diameter_mm=8.123)
    paths = write_results(result_objects([result], series, reported_model()), tmp_path)
    (group,) = read_back(paths[-1]).get_planar_roi_measurement_groups()
    assert values(group.get_measurements()) == {
        "Probability of cancer": 0.123456789012345678,
        "Decision threshold of the probability": 0.3,
        "Diameter": 8.123,
    }
    assert {unit.value for unit in (m.unit for m in group.get_measurements())} == {"1", "mm"}
    decisions = group.get_qualitative_evaluations()
    assert {item.name.meaning: item.value.meaning for item in decisions} == {
        "Decision at the operating point": "Negative"
    }
    np.testing.assert_allclose(group.roi.value, [CENTER_LPS], rtol=1e-6)
    assert group.roi.frame_of_reference_uid == series.frame_of_reference
    assert group.tracking_identifier == "ct#1"
    said = texts(group)
    assert ("Comment", "Research use; not a medical device.") in said
    (point,) = [text for name, text in said if name == "CAD Operating Point Description"]
    assert point.startswith("malignant: probability ≥ 0.3 (at least 90 % sensitivity, on 40 malignant and 60 benign")
    assert ("Algorithm Name", "tiny@0123456789ab") in said
    assert ("Algorithm Parameters", f"model digest (SHA-256): {reported_model().digest}") in said


def test_a_report_says_what_its_probabilities_rest_on(series):
    report = result_objects(KINDS["two findings"][0], series, TWO_FINDINGS).report
    said = {item.ConceptNameCodeSequence[0].CodeMeaning: item.TextValue for item in nested(report, "TEXT")}
    assert said["What the model's labels are from"] == "made up"
    assert said["Intensities that the model was trained on"] == "simulated"
    assert said["How probabilities were calibrated"] == "temperature 1.5"
    assert said["Probabilities left to a human"] == "0.2 to 0.4"


def test_a_number_too_long_for_its_text_is_exact_beside_it(series, tmp_path):
    """A decimal string has 16 characters; the same value stands as a double, too."""
    result = case_result(probability=1.2345678901234567e-10)
    (group,) = read_back(
        write_results(result_objects([result], series, reported_model()), tmp_path)[-1]
    ).get_planar_roi_measurement_groups()
    assert values(group.get_measurements())["Probability of cancer"] == 1.2345678901234567e-10


def test_the_slices_that_the_region_reaches_are_named_below_the_probability(series):
    """16 slices 2 mm apart from -16 mm on; the region reaches 14 mm beyond -3.75."""
    report = result_objects([case_result()], series, reported_model()).report
    used = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in nested(report, "IMAGE", "Source of Measurement")
    }
    assert used == {f"{SERIES}.{number + 1}" for number in range(14)}
    narrow = result_objects([case_result()], series, reported_model(region_mm=(1.0, 1.0, 1.0))).report
    (nearest,) = nested(narrow, "IMAGE", "Source of Measurement")
    assert nearest.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{SERIES}.7"  # at -4 mm


def test_a_zoomed_region_reaches_fewer_slices(series):
    """Enlarged twice, the region of 28 mm has 14: 7 mm to either side of -3.75, that is -10 to 2."""
    zoom = Zoom(column="diameter_mm", reference_mm=10.0)
    report = result_objects([case_result(diameter_mm=5.0)], series, reported_model(zoom=zoom)).report
    assert len(nested(report, "IMAGE", "Source of Measurement")) == 7


def test_the_centre_says_nothing_where_a_model_takes_whole_images(series):
    objects = result_objects([case_result()], series, WHOLE_IMAGE)
    assert objects.captures == ()
    assert nested(objects.report, "SCOORD3D") == []
    assert len(nested(objects.report, "IMAGE", "Source of Measurement")) == 16


def nested(item, value_type, name=None):
    """Content items of a type, at any depth."""
    found = []
    for child in item.get("ContentSequence", ()):
        named = child.ConceptNameCodeSequence[0].CodeMeaning
        found += [child] if child.ValueType == value_type and name in (None, named) else []
        found += nested(child, value_type, name)
    return found


def test_a_refused_scan_has_its_code_in_words_and_no_number(series, tmp_path):
    paths = written("refused", series, tmp_path)
    assert len(paths) == 1
    report = hd.sr.srread(paths[0])
    assert nested(report, "NUM") == []
    assert nested(report, "SCOORD3D") == []
    (reason,) = nested(report, "TEXT", "Why there is no probability")
    assert reason.TextValue == (
        "E_SLICE_GAP: a slice is missing between two others; copy it again. "
        "A slice is missing, or distances are uneven: copy the missing slices, or resample."
    )
    (summary,) = nested(report, "CODE", "CAD Processing and Findings Summary")
    assert summary.ConceptCodeSequence[0].CodeMeaning == "No algorithms succeeded; without findings"


def test_a_refused_lesion_beside_scored_ones_has_no_number(series, tmp_path):
    report = read_back(written("two lesions and a refused one", series, tmp_path)[-1])
    assert [len(group.get_measurements()) for group in report.get_planar_roi_measurement_groups()] == [3, 2]
    (refused,) = report.get_image_measurement_groups()
    assert refused.get_measurements() == []
    assert refused.tracking_identifier == "ct#3"


def test_warnings_stand_beside_the_probability(series, tmp_path):
    (group,) = read_back(written("flagged", series, tmp_path)[-1]).get_planar_roi_measurement_groups()
    assert [text for name, text in texts(group) if name == "Warning"] == [
        "W_PADDING: part of the region lies outside the image and is filled up",
        "W_SPACING: slices are not quite even, or a thickness is missing",
    ]


def test_a_report_says_that_a_detector_found_the_lesion(series, tmp_path):
    (group,) = read_back(written("found by a detector", series, tmp_path)[-1]).get_planar_roi_measurement_groups()
    (words,) = [text for name, text in texts(group) if name == "How the lesion was found"]
    assert words.startswith("found by a detector, 0.125 likely to be a lesion")
    (marked,) = read_back(written("scored", series, tmp_path / "marked")[-1]).get_planar_roi_measurement_groups()
    assert "How the lesion was found" not in dict(texts(marked))


def algorithms(item):
    """Name and parameters of the algorithm that a content item names directly."""
    said = {child.ConceptNameCodeSequence[0].CodeMeaning: child for child in item.get("ContentSequence", ())}
    if "Algorithm Name" not in said:
        return None
    return said["Algorithm Name"].TextValue, said["Algorithm Version"].TextValue, said["Algorithm Parameters"].TextValue


def test_what_a_detector_measured_names_it_beside_the_classifier(series, tmp_path):
    (group,) = read_back(written("found by a detector", series, tmp_path)[-1]).get_planar_roi_measurement_groups()
    assert algorithms(group[0])[0] == "tiny@0123456789ab"
    measured = {item.name.meaning: (item.value, algorithms(item[0])) for item in group.get_measurements()}
    named = (DETECTOR.name, __version__, f"model digest (SHA-256): {DETECTOR.digest}")
    assert measured["Probability of being a lesion"] == (0.125, named)
    assert measured["Diameter"] == (8.5, named)
    assert measured["Probability of cancer"] == (0.25, None)  # the group's
    (marked,) = read_back(written("scored", series, tmp_path / "marked")[-1]).get_planar_roi_measurement_groups()
    assert [algorithms(item[0]) for item in marked.get_measurements()] == [None] * 3


def test_each_finding_has_its_probability_and_decision(series, tmp_path):
    (group,) = read_back(written("two findings", series, tmp_path)[-1]).get_planar_roi_measurement_groups()
    found = values(group.get_measurements())
    assert (found["Probability of cancer"], found["Probability of spiculated"]) == (0.25, 0.75)
    decisions = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert decisions == {"Decision at the operating point": "Indeterminate", "Decision on spiculated": "Positive"}


def test_what_ohif_reads_is_there(series):
    """The title, the image library with a group, and of each group tracking, point and units (OHIF's SR extension)."""
    report = result_objects(KINDS["two lesions and a refused one"][0], series, reported_model()).report
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    by_code = {item.ConceptNameCodeSequence[0].CodeValue: item for item in report.ContentSequence}
    (library_group,) = by_code["111028"].ContentSequence
    assert library_group.ConceptNameCodeSequence[0].CodeValue == "126200"
    images = [item for item in library_group.ContentSequence if "ReferencedSOPSequence" in item]
    assert len(images) == 16
    groups = by_code["126010"].ContentSequence
    assert len(groups) == 3
    for group in groups:
        assert group.ConceptNameCodeSequence[0].CodeValue == "125007"
        first_uid = next(item for item in group.ContentSequence if item.ValueType == "UIDREF")
        assert first_uid.ConceptNameCodeSequence[0].CodeValue == "112040"  # OHIF takes the first for the tracking UID
        for item in group.ContentSequence:
            if item.ValueType == "SCOORD3D":
                assert item.ReferencedFrameOfReferenceUID == series.frame_of_reference
            if item.ValueType == "NUM":
                assert item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue


def test_a_result_made_again_is_the_same_objects(series, tmp_path):
    first, second = (written("two lesions and a refused one", series, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def uid_of(series, *results, model=None):
    return result_objects(results, series, model or reported_model()).report.SOPInstanceUID


def test_another_result_is_another_object(series, tmp_path):
    """Model, slices, lesion, threshold and refusal make another; the last digit of a probability does not."""
    fewer = SourceSeries.read(write_series(tmp_path / "ct", skip=(15,)), modality="CT")
    uids = [
        uid_of(series, case_result()),
        uid_of(series, case_result(), model=reported_model(digest="f" * 64)),
        uid_of(fewer, case_result()),
        uid_of(series, case_result(center_mm=(1.25, 2.125, -3.0))),
        uid_of(series, case_result(case_id="other")),
        uid_of(series, case_result(threshold=0.2)),
        uid_of(series, case_result(probability=None)),
        uid_of(series, case_result(), case_result(case_id="ct#2")),
        uid_of(series, case_result(lesion_probability=0.125, detector=DETECTOR)),
    ]
    assert len(set(uids)) == len(uids)
    assert uid_of(series, case_result(probability=0.25 + 1e-9)) == uids[0]


def test_a_lesion_is_tracked_from_one_model_to_another(series, tmp_path):
    tracked = {
        read_back(write_results(result_objects([case_result()], series, model), tmp_path)[-1])
        .get_planar_roi_measurement_groups()[0]
        .tracking_uid
        for model in (reported_model(), reported_model(digest="f" * 64))
    }
    assert len(tracked) == 1


def test_a_new_report_names_the_one_that_it_replaces(series, tmp_path):
    fewer = SourceSeries.read(write_series(tmp_path / "ct", skip=(15,)), modality="CT")
    earlier = result_objects([case_result()], fewer, reported_model()).report
    report = result_objects([case_result()], series, reported_model(), replaces=[earlier]).report
    (study,) = report.PredecessorDocumentsSequence
    (named,) = study.ReferencedSeriesSequence
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert named.SeriesInstanceUID == report.SeriesInstanceUID  # both stand in one series, the newer one beside it
    (path, *_) = write_results(
        result_objects([case_result()], series, reported_model(), replaces=[earlier]), tmp_path / "o"
    )
    assert dciodvfy_errors(path) == []


def test_images_that_changed_since_they_were_scored_are_refused(series):
    with pytest.raises(CaseError, match="its images are not those that were scored; score it again"):
        result_objects([case_result(image_sha256="0" * 64)], series, reported_model())
    result_objects([case_result(image_sha256=series.scan.digest)], series, reported_model())


def test_without_a_frame_of_reference_there_is_a_number_and_no_point(tmp_path):
    def edit(image, _):
        del image.FrameOfReferenceUID

    series = SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT")
    report = write_results(result_objects([case_result()], series, reported_model()), tmp_path / "out")[-1]
    (group,) = read_back(report).get_image_measurement_groups()
    assert values(group.get_measurements())["Probability of cancer"] == 0.25
    assert dciodvfy_errors(report) == []


def test_files_are_their_owners_alone(series, tmp_path):
    for path in written("scored", series, tmp_path / "out"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_dicom_validator_would_find_a_missing_attribute(series, tmp_path):
    """It runs on the standard's tables that are at hand, and these know what a report must have."""
    path = written("refused", series, tmp_path)[-1]
    report = hd.sr.srread(path)
    del report.CompletionFlag
    report.save_as(path)
    assert "sr-document-general" in "".join(dicom_validator_errors(path)).lower().replace(" ", "-")
