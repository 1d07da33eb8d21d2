"""The configuration that fits what was found in a folder: inputs from sizes, spacings and intensities."""

import nibabel as nib
import numpy as np
import pytest
import yaml
from made_scans import scan

from pipeline.cases.intake.scans import survey
from pipeline.cases.intake.settings import configuration_text, prepare_for
from pipeline.config.experiment import Config

CENTER = (0.0, 0.0, 0.0)


def saved(folder, *, values=(0, 255), count=3, shape=(40, 40, 30), spacing=(1.0, 1.0, 2.0), names="scan"):
    """Surveyed scans of noise between two values."""
    rng = np.random.default_rng(0)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.multiply(spacing, shape) / 2
    for number in range(count):
        voxels = rng.integers(*values, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{names}{number}.nii.gz")
    return list(survey(folder))


def config_of(preparation, **more):
    """The written configuration as the trainer reads it."""
    text = configuration_text(
        name="mine",
        preparation=preparation,
        label_source='a "quoted" opinion: with a colon',
        cases=40,
        what="40 cases",
        **more,
    )
    return Config.model_validate(yaml.safe_load(text)), text


def test_lesions_make_a_cube_a_little_wider_than_the_widest_and_no_finer_than_the_scans():
    scans = [scan(f"{number}.nii", spacing=(0.7, 0.7, 1.0)) for number in range(4)]
    found = prepare_for(scans, [CENTER] * 4, [8.0, 12.0, 20.0, 30.0])
    assert (found.dimensions, found.region) == (3, "lesion")
    width = found.size[0] * found.spacing_mm[0]
    assert width == pytest.approx(1.6 * np.percentile([8, 12, 20, 30], 95), rel=0.05)
    assert min(found.spacing_mm) >= 0.7
    unknown = prepare_for(scans, [CENTER] * 4, [None] * 4)
    assert unknown.size[0] * unknown.spacing_mm[0] == pytest.approx(40, rel=0.1)


def test_one_case_without_a_centre_makes_the_region_the_whole_image():
    scans = [scan("a.nii", shape=(200, 180, 60), spacing=(1.0, 1.0, 3.0)), scan("b.nii")]
    found = prepare_for(scans, [CENTER, None], [8.0, None])
    assert found.region == "image"
    assert np.multiply(found.size, found.spacing_mm)[0] >= 0.9 * 200
    assert all(length % 8 == 0 for length in found.size)


def test_scans_without_millimetres_are_resized():
    bare = [scan("a.nii"), scan("b.nii")]
    for each in bare:
        object.__setattr__(each, "has_millimetres", False)
    assert prepare_for(bare, [None, None], [None, None]).spacing_mm is None
    assert prepare_for([bare[0], scan("c.nii")], [None, None], [None, None]).spacing_mm is None


@pytest.mark.parametrize(
    ("values", "names", "modality", "why"),
    [
        ((-1000, 400), "scan", "CT", "values around -1000"),
        ((0, 2), "scan", "mask", "two values alone"),
        ((0, 900), "scan", "MR", "no negative values"),
        ((0, 900), "t1_", "MR", "a word in the paths"),
    ],
)
def test_modality_is_told_from_values_and_words(tmp_path, values, names, modality, why):
    scans = saved(tmp_path, values=values, names=names)
    found = prepare_for(scans, [None] * 3, [None] * 3)
    assert found.modality == modality
    assert why in found.why_modality


def test_modality_is_as_the_files_declare_or_as_given(tmp_path):
    scans = [scan("a", modality="MR"), scan("b", modality="MR")]
    assert prepare_for(scans, [None] * 2, [None] * 2).modality == "MR"
    assert prepare_for(scans, [None] * 2, [None] * 2, modality="US").why_modality == "as given"


def test_window_of_ct_comes_from_the_voxels_around_the_lesions(tmp_path):
    scans = saved(tmp_path, values=(-200, 301))
    found = prepare_for(scans, [CENTER] * 3, [10.0] * 3, modality="CT")
    assert (found.lower, found.upper) == (-200, 300)


def test_configuration_is_one_that_the_trainer_accepts_and_holds_what_was_found():
    scans = [scan(f"{number}.nii", modality="CT") for number in range(4)]
    preparation = prepare_for(scans, [CENTER] * 4, [10.0] * 4)
    config, text = config_of(preparation, covariates=["diameter_mm"], subgroups=["sex", "site: main"])
    assert text.startswith("# 40 cases\n")
    assert config.preprocessing.size == preparation.size
    assert config.preprocessing.spacing_mm == preparation.spacing_mm
    assert config.data.modality == "CT"
    assert config.data.label_source == 'a "quoted" opinion: with a colon'
    assert config.data.covariates == {"diameter_mm": "log"}
    assert config.evaluation.subgroups == ("sex", "site: main")
    assert config.evaluation.baseline_columns == ("diameter_mm",)
    assert config.training.folds == config.training.members == "auto"


def test_whole_images_are_mirrored_left_to_right_alone():
    flat = [scan("a.png", shape=(64, 64, 1)), scan("b.png", shape=(64, 64, 1))]
    config, _ = config_of(prepare_for(flat, [None] * 2, [None] * 2))
    assert config.preprocessing.dimensions == 2
    assert config.augmentation.flip_axes == (0,)
    assert not config.augmentation.quarter_turns
