"""Ten folders as hospitals and researchers have them, each written from a seed, with the truth about it.

Every ``write_...`` fills an empty folder in seconds and returns a ``MadeFolder``: small images whose classes a network
can tell apart after seconds of training, in the names, tables and formats that such people really have.
"""

from made_folders.busi_tree import write_busi_tree
from made_folders.ct_xlsx_masks import write_ct_xlsx_masks
from made_folders.dicom_study_tree import write_dicom_study_tree
from made_folders.forty_cases import write_forty_cases
from made_folders.luna16_like import write_luna16_like
from made_folders.mammography import write_mammography
from made_folders.mess import write_mess
from made_folders.mr_mgz import write_mr_mgz
from made_folders.semicolon_export import write_semicolon_export
from made_folders.slicer_session import write_slicer_session
from made_folders.truth import Expected, LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why

MAKERS = {
    "ct_xlsx_masks": write_ct_xlsx_masks,
    "busi_tree": write_busi_tree,
    "dicom_study_tree": write_dicom_study_tree,
    "luna16_like": write_luna16_like,
    "slicer_session": write_slicer_session,
    "mr_mgz": write_mr_mgz,
    "semicolon_export": write_semicolon_export,
    "mammography": write_mammography,
    "forty_cases": write_forty_cases,
    "mess": write_mess,
}

FEW = dict.fromkeys(MAKERS, 24) | {"dicom_study_tree": 12}  # cases that show what there is in little time

__all__ = [
    "FEW",
    "MAKERS",
    "Expected",
    "LeftOut",
    "MadeFolder",
    "MadeLesion",
    "MadeScan",
    "Unlabelled",
    "Why",
    "write_busi_tree",
    "write_ct_xlsx_masks",
    "write_dicom_study_tree",
    "write_forty_cases",
    "write_luna16_like",
    "write_mammography",
    "write_mess",
    "write_mr_mgz",
    "write_semicolon_export",
    "write_slicer_session",
]
