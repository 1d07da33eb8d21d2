"""Codes of the report: the standard's where it has one for the purpose, else of a private scheme."""

from __future__ import annotations

from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

PRIVATE: Final = "99MALIGNANCY"
PRIVATE_SCHEME: Final = CodingSchemeIdentificationItem(
    designator=PRIVATE, name="Codes of malignancy-pipeline", responsible_organization="malignancy-pipeline"
)

PROBABILITY_OF_CANCER: Final = Code("111047", "DCM", "Probability of cancer")
OPERATING_POINT: Final = Code("111081", "DCM", "CAD Operating Point Description")
PROCESSING_SUMMARY: Final = Code("111017", "DCM", "CAD Processing and Findings Summary")
ALL_SUCCEEDED: Final = Code("111242", "DCM", "All algorithms succeeded; with findings")
SOME_SUCCEEDED: Final = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED: Final = Code("111245", "DCM", "No algorithms succeeded; without findings")
COMMENT: Final = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
SOURCE: Final = Code("260753009", "SCT", "Source")

DECISION: Final = Code("decision", PRIVATE, "Decision at the operating point")
THRESHOLD: Final = Code("threshold", PRIVATE, "Decision threshold of the probability")
LABEL_SOURCE: Final = Code("label-source", PRIVATE, "What the model's labels are from")
INTENSITIES: Final = Code("intensities", PRIVATE, "Intensities that the model was trained on")
CALIBRATION: Final = Code("calibration", PRIVATE, "How probabilities were calibrated")
REFER_ZONE: Final = Code("refer-zone", PRIVATE, "Probabilities left to a human")
NOT_SCORED: Final = Code("not-scored", PRIVATE, "Why there is no probability")
FOUND: Final = Code("found", PRIVATE, "How the lesion was found")
PROBABILITY_OF_LESION: Final = Code("probability-of-lesion", PRIVATE, "Probability of being a lesion")
WARNING: Final = Code("warning", PRIVATE, "Warning")

DECISION_VALUES: Final = {
    "positive": Code("10828004", "SCT", "Positive"),
    "negative": Code("260385009", "SCT", "Negative"),
    "refer": Code("82334004", "SCT", "Indeterminate"),
}
PROCEDURES: Final = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "XR": codes.cid100.XRUnspecifiedBodyRegion,
}
MODALITIES: Final = {
    "CT": Code("CT", "DCM", "Computed Tomography"),
    "MR": Code("MR", "DCM", "Magnetic Resonance"),
    "US": Code("US", "DCM", "Ultrasound"),
}


def probability_of(finding: str) -> CodedConcept:
    """The name of another finding's probability."""
    return CodedConcept(f"probability-of-{finding}", PRIVATE, f"Probability of {finding}"[:64])


def decision_on(finding: str) -> CodedConcept:
    """The name of another finding's decision."""
    return CodedConcept(f"decision-on-{finding}", PRIVATE, f"Decision on {finding}"[:64])
