"""Which files are masks by name, and whose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cases.lesions.names import image_stem, is_mask_name, organ_of_mask, pair_markups, pair_masks


@pytest.mark.parametrize(
    "name",
    [
        "x_mask.png", "x_mask_1.png", "benign (1)_mask.png", "benign (1)_mask_2.png", "x_lesion.nii.gz",
        "x_lesion_2.nii.gz", "x_seg.nii.gz", "x_seg_left.nii.gz", "x-label.nrrd", "x-labelmap.nrrd", "x.seg.nrrd",
        "Seg.nii.gz", "mask.png",
        "masks/x.png", "labelsTr/x.nii.gz", "train/Masks/x.png", "P1/segmentation.nii.gz", "segmentation-0.nii",
        "mask_007.png", "x_gt.png", "x_ROI.nii", "lesion.nii.gz", "label.nii.gz", "ground_truth/x.png",
        "GroundTruth.png", "seg-lungs-LUNA16/1.2.3.mhd", "lung_masks/x.nii", "P1/Segmentation.seg.nrrd",
    ],
)  # fmt: skip
def test_masks_are_known_by_their_names(name):
    assert is_mask_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "x.png", "scan.nii.gz", "lesion_001.nii.gz", "tumor_12.png", "label_7_scan.png", "unmasked.png", "segal.nii.gz",
        "images/x.png", "P1/ct.nii.gz", "x_0000.nii.gz", "Masking/x.png", "roi_3.png", "gt350_scan.nii", "1.2.840.mhd",
    ],
)  # fmt: skip
def test_scans_are_not_taken_for_masks(name):
    assert not is_mask_name(name)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["b/benign (1).png", "b/benign (10).png"], {"b/benign (1)_mask.png": 0, "b/benign (1)_mask_1.png": 0}),
        (["b/benign (1).png", "m/benign (1).png"], {"m/benign (1)_mask.png": 1}),
        (["images/x.png", "images/y.png"], {"masks/x.png": 0, "masks/y.png": 1}),
        (["train/images/x.png", "test/images/x.png"], {"train/masks/x.png": 0, "test/masks/x_mask.png": 1}),
        (["imagesTr/a_0000.nii.gz", "imagesTr/ab_0000.nii.gz"], {"labelsTr/a.nii.gz": 0, "labelsTr/ab.nii.gz": 1}),
        (["imagesTr/lung_001.nii.gz"], {"labelsTr/lung_001.nii.gz": 0}),
        (["c1/ct.nii.gz", "c2/ct.nii.gz"], {"c1/seg.nii.gz": 0, "c2/mask1.nii.gz": 1, "c2/mask2.nii.gz": 1}),
        (["c1/imaging.nii.gz", "c2/imaging.nii.gz"], {"c1/segmentation.nii.gz": 0}),
        (["volume-0.nii", "volume-10.nii"], {"segmentation-0.nii": 0, "segmentation-10.nii": 1}),
        (["image_001.png", "image_002.png"], {"mask_002.png": 1}),
        (["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"], {"d/sub-01_space-T1w_label-lesion_mask.nii.gz": 0}),
        (["P1/CT", "P2/CT"], {"masks/P1.nii.gz": 0, "P2/seg.nii.gz": 1}),
        (["P1#1a2b3c4d", "P2#1a2b3c4d"], {"P1_mask.nii.gz": 0, "masks/P2.nii.gz": 1}),
        (["P_01_Thorax.nii", "P_02_Thorax.nii"], {"P_01_Thorax_lesion.nii.gz": 0, "p_02_thorax_LESION_2.nii": 1}),
        (["x.nii.gz", "x_1.nii.gz"], {"x_tumour_mask.nii.gz": 0, "x_1_mask.nii.gz": 1}),
        (["P 1/3 Thorax.nrrd", "P 1/Scene View.png"], {"P 1/Segmentation.seg.nrrd": 0, "P 1/mask.png": 1}),
        (["P1/x.nii.gz", "P1/x.png"], {"P1/x_mask.png": 1, "P1/x_mask.nii.gz": 0}),
        (["s0/1.2.3.mhd", "s1/1.2.4.mhd"], {"seg-lungs-LUNA16/1.2.4.mhd": 1}),
    ],
)  # fmt: skip
def test_masks_find_their_images(images, masks):
    pairing = pair_masks(images, list(masks))
    assert pairing.image_of == {mask: images[place] for mask, place in masks.items()}
    assert not pairing.ambiguous
    assert not pairing.alone


@pytest.mark.parametrize(
    ("images", "mask", "fitting"),
    [
        (["a/x.png", "b/x.png"], "masks/x.png", 2),
        (["B_flair.nii.gz", "B_t1.nii.gz"], "B_seg.nii.gz", 2),
        (["ct.nii.gz", "pet.nii.gz"], "seg.nii.gz", 2),
        (["x.png", "x.jpg"], "x_mask.png", 2),
        (["f#1a2b3c4d", "f#aaaaaaaa"], "f_mask.nii.gz", 2),
        (["x.nii.gz"], "y_mask.nii.gz", 0),
        (["x_1.nii.gz"], "x_2_mask.nii.gz", 0),
        (["x.nii.gz"], "x_2_mask.nii.gz", 0),  # of another scan, x_2, that is not here
        (["image_002.png"], "mask_001.png", 0),
        ([], "seg.nii.gz", 0),
    ],
)
def test_what_fits_several_images_or_none_is_said_and_not_guessed(images, mask, fitting):
    pairing = pair_masks(images, [mask])
    assert not pairing.image_of
    assert sorted(pairing.ambiguous.get(mask, ())) == (sorted(images) if fitting else [])
    assert pairing.alone == (() if fitting else (mask,))


@pytest.mark.parametrize(
    ("mask", "image", "organ"),
    [
        ("seg-lungs-LUNA16/1.2.mhd", "subset0/1.2.mhd", "lungs"),
        ("x_lung_mask.nii.gz", "x.nii.gz", "lung"),
        ("masks/liver/x.nii.gz", "images/x.nii.gz", "liver"),
        ("Task06_Lung/labelsTr/lung_001.nii.gz", "Task06_Lung/imagesTr/lung_001.nii.gz", None),
        ("x_liver_tumour_mask.nii.gz", "x.nii.gz", None),
        ("x_mask.nii.gz", "x.nii.gz", None),
        ("P1/seg.nii.gz", "P1/lung.nii.gz", None),
    ],
)
def test_masks_of_organs_are_known_by_a_word_that_the_image_has_not(mask, image, organ):
    assert organ_of_mask(mask, image) == organ


def test_markups_belong_to_their_name_or_their_folders_only_image():
    images = ["P1/vol.nrrd", "P2/vol.nrrd", "x.nrrd", "y.nrrd"]
    files = {
        "P1/F.mrk.json": "P1/vol.nrrd",
        "P2/vol_F_1.fcsv": "P2/vol.nrrd",
        "x.mrk.json": "x.nrrd",
        "y-L.fcsv": "y.nrrd",
    }
    assert pair_markups(images, list(files)).image_of == files
    assert pair_markups(["x.nrrd", "y.nrrd"], ["F.fcsv"]).ambiguous
    assert pair_markups(["P/x.nrrd", "P/Scene View.png"], ["P/F.fcsv"]).image_of  # a picture has no millimetres


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), max_size=4))
def test_any_names_at_all_are_sorted_into_one_of_the_three(names):
    images = [f"{name}.nii.gz" for name in dict.fromkeys(names)]
    masks = [f"{name}_mask.nii.gz" for name in dict.fromkeys(names)]
    pairing = pair_masks(images, masks)
    assert sorted([*pairing.image_of, *pairing.ambiguous, *pairing.alone]) == sorted(masks)
    assert set(pairing.image_of.values()) <= set(images)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("A.nii.gz", "a"), ("1.2.840.113.mhd", "1.2.840.113"), ("1.2.840.113", "1.2.840.113"), ("x.seg.nrrd", "x.seg")],
)
def test_only_the_formats_suffix_is_taken_off(name, stem):
    assert image_stem(name) == stem
