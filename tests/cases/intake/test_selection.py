"""Several series of one study, copies, derived files and label maps: one stays, the others are named."""

import nibabel as nib
import numpy as np
import pytest
from made_scans import scan

from pipeline.cases.intake.derived_files import one_kind_of_file
from pipeline.cases.intake.masks import without_label_maps
from pipeline.cases.intake.scans import SurveyedScan, UnreadScan, survey
from pipeline.cases.intake.selection import choose_series, without_copies
from pipeline.errors import UsageError


def kept(scans, marked=()):
    chosen, left_out = choose_series(scans, marked)
    return [each.image for each in chosen], {left.scan.image: left.reason for left in left_out}


def ct(image, study, kernel, **more):
    return scan(image, modality="CT", study=study, kernel=kernel, **more)


def test_of_two_kernels_the_commonest_in_the_cohort_stays():
    scans = [ct("p1/sharp", "1", "B60"), ct("p1/soft", "1", "B30"), ct("p2/soft", "2", "B30")]
    images, reasons = kept(scans)
    assert images == ["p1/soft", "p2/soft"]
    assert reasons == {"p1/sharp": "another kernel of the study of p1/soft"}


def test_the_series_whose_lesions_are_marked_stays_whatever_its_kernel():
    scans = [ct("p1/sharp", "1", "B60"), ct("p1/soft", "1", "B30"), ct("p2/soft", "2", "B30")]
    assert kept(scans, marked=[0])[0] == ["p1/sharp", "p2/soft"]


def test_of_one_kernel_the_thinner_slices_stay():
    scans = [
        ct("a/thick", "1", "B30", spacing=(1, 1, 5), shape=(32, 32, 16)),
        ct("a/thin", "1", "B30", spacing=(1, 1, 1), shape=(32, 32, 80)),
    ]
    assert kept(scans) == (["a/thin"], {"a/thick": "thicker slices of the study of a/thin"})


def test_series_of_other_places_and_other_studies_all_stay():
    scans = [ct("chest", "1", "B30"), ct("abdomen", "1", "B30", origin=(0, 0, 300)), ct("later", "2", "B30")]
    assert kept(scans)[0] == ["chest", "abdomen", "later"]


def test_views_of_a_radiograph_and_files_without_a_study_are_no_repetitions():
    scans = [scan(f"m/{view}", modality="XR", study="1", view=view) for view in ("L CC", "L MLO")]
    scans += [scan("a.nii.gz"), scan("b.nii.gz")]
    assert len(kept(scans)[0]) == 4


def test_exact_copies_are_known_by_their_bytes_and_the_shortest_path_stays(tmp_path):
    for name, value in (("a - copy", 1), ("a", 1), ("c", 2)):
        nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.int16), np.eye(4)), tmp_path / f"{name}.nii")
    scans = [found for found in survey(tmp_path) if isinstance(found, SurveyedScan)]
    chosen, copies = without_copies(scans)
    assert [each.image for each in chosen] == ["a.nii", "c.nii"]
    assert [(copy.scan.image, copy.reason) for copy in copies] == [("a - copy.nii", "an exact copy of a.nii")]
    assert chosen[0].copies == ("a - copy.nii",)


def test_files_of_the_same_names_in_many_folders_are_one_scan_and_what_was_computed_from_it():
    names = ("T1.mgz", "aseg.mgz", "brainmask.mgz")
    scans = [scan(f"sub-{number}/mri/{name}") for number in range(4) for name in names]
    chosen, derived, line = one_kind_of_file(scans)
    assert [each.image for each in chosen] == [f"sub-{number}/mri/T1.mgz" for number in range(4)]
    assert len(derived) == 8
    assert "T1.mgz (4), aseg.mgz (4), brainmask.mgz (4): T1.mgz is taken [--files PATTERN]" in line


def test_names_that_do_not_say_which_is_the_scan_are_asked_for():
    scans = [scan(f"{number}/{name}") for number in range(3) for name in ("left.nii", "right.nii")]
    with pytest.raises(UsageError, match="say which are the scans, as --files"):
        one_kind_of_file(scans)


def test_two_scans_of_a_folder_under_names_of_their_own_are_two_scans():
    scans = [scan(f"{number}/scan_{number}{letter}.nii") for number in range(5) for letter in "ab"]
    assert one_kind_of_file(scans) == (scans, [], None)


def test_a_label_map_under_a_scans_own_name_is_found_by_its_values(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("scans", "lungs"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        voxels = rng.normal(-800, 100, (12, 12, 12)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scans" / f"{number}.nii")
        nib.save(nib.Nifti1Image((voxels > -800).astype(np.uint8) * 3, np.eye(4)), tmp_path / "lungs" / f"{number}.nii")
    scans, maps = without_label_maps([each for each in survey(tmp_path) if isinstance(each, SurveyedScan)])
    assert {each.image.split("/")[0] for each in scans} == {"scans"}
    assert {each.image.split("/")[0] for each in maps} == {"lungs"}


def test_the_survey_names_what_it_cannot_open_and_passes_over_our_own_folders(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "empty.nii").touch()
    (tmp_path / "runs" / "x" / "figures").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "model").mkdir()
    (tmp_path / "runs" / "x" / "run.json").write_text("{}")
    (tmp_path / "runs" / "x" / "figures" / "roc.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = list(survey(tmp_path))
    assert [type(each) for each in found] == [SurveyedScan, UnreadScan]
    assert found[1].image == "empty.nii"


def test_of_equal_spacings_the_most_slices_stay():
    scans = [ct("a/part", "1", "B30", shape=(32, 32, 20)), ct("a/whole", "1", "B30", shape=(32, 32, 40))]
    assert kept(scans)[0] == ["a/whole"]


def test_ct_and_mr_of_one_study_both_stay():
    scans = [ct("a/ct", "1", "B30"), scan("a/mr", modality="MR", study="1", description="T1")]
    assert kept(scans)[0] == ["a/ct", "a/mr"]


def test_files_of_other_sizes_beside_each_other_are_scans_of_their_own():
    shapes = {"t1.nii": (32, 32, 40), "t2.nii": (16, 16, 20)}
    scans = [scan(f"{number}/{name}", shape=shape) for number in range(4) for name, shape in shapes.items()]
    assert one_kind_of_file(scans) == (scans, [], None)


def test_a_data_set_of_label_maps_alone_keeps_them(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        voxels = np.arange(4 * 4 * 4).reshape(4, 4, 4) % 3
        nib.save(nib.Nifti1Image(voxels.astype(np.uint8), np.eye(4)), tmp_path / folder / "1.nii")
    scans, maps = without_label_maps([each for each in survey(tmp_path) if isinstance(each, SurveyedScan)])
    assert (len(scans), maps) == (2, [])


@pytest.mark.parametrize(
    ("image", "view", "side"),
    [
        ("m/1", "L CC", "L"),
        ("m/1", "R", "R"),
        ("m/1", "LATERAL", ""),
        ("m/RMLO.png", "", "R"),
        ("m/left_to_right.png", "", ""),
    ],
)
def test_the_side_of_a_view_is_said_by_its_header_or_its_name(image, view, side):
    assert scan(image, view=view).side == side


def test_a_bids_data_set_of_several_sequences_is_asked_about():
    images = [f"sub-{n}/ses-1/anat/sub-{n}_ses-1_{kind}.nii.gz" for n in range(8) for kind in ("T1w", "FLAIR")]
    scans = [scan(image) for image in images[:-3]]
    with pytest.raises(
        UsageError, match=r"several kinds of scan, T1w \(7\), FLAIR \(6\); say which.*'\*\*/\*_T1w\.\*'"
    ):
        one_kind_of_file(scans)
    assert len(one_kind_of_file([each for each in scans if "T1w" in each.image])[0]) == 7


def test_visits_with_dates_in_their_names_are_of_one_kind():
    scans = [scan(f"P{n}/CT_{date}.nii.gz") for n in range(4) for date in ("20190301", "20200405")]
    assert one_kind_of_file(scans) == (scans, [], None)
