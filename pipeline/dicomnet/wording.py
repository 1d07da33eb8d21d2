"""Texts of every result object."""

from __future__ import annotations

from typing import Final

DISCLAIMER: Final = "Research use; not a medical device."
MANUFACTURER: Final = "malignancy-pipeline"
REPORT_DESCRIPTION: Final = "Probability of malignancy, research use"
CAPTURE_DESCRIPTION: Final = "Lesions and probabilities, research use"
REPORT_SERIES_NUMBER: Final = 9901
CAPTURE_SERIES_NUMBER: Final = 9902
