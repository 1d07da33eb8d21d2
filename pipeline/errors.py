"""Everything that can go wrong, as one exception tree and one closed list of codes.

    PipelineError
    ├── UsageError              wrong usage, configuration or table: exit code 2
    │   ├── ConfigError         a configuration that cannot be meant
    │   └── TableError          a manifest that cannot be used as a whole; carries a code
    ├── CaseError               one case that cannot be used; carries a code
    ├── ModelError              a model directory that is damaged, foreign or incomplete
    ├── CalibrationError        a calibrator that the data do not support
    ├── UndefinedMetricError    a statistic that the data do not define
    └── UnfinishedError         the job could not finish: exit code 3

Messages are one line: what, the value found, what was expected, the way out. They never hold a value
of a DICOM patient or study attribute, nor a password of a URL.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline.redaction import redact


class Code(StrEnum):
    """Why a case was rejected (``E_``) or flagged (``W_``). Rows, tables and reports use no other words."""

    # Containers: the file as bytes.
    E_NOT_FOUND = "E_NOT_FOUND"
    E_NOT_REGULAR = "E_NOT_REGULAR"
    E_PERMISSION = "E_PERMISSION"
    E_OUTSIDE_ROOT = "E_OUTSIDE_ROOT"
    E_EMPTY_FILE = "E_EMPTY_FILE"
    E_FORMAT = "E_FORMAT"
    E_TRUNCATED = "E_TRUNCATED"
    E_CHECKSUM = "E_CHECKSUM"
    E_TOO_LARGE = "E_TOO_LARGE"
    E_SIDE_FILE = "E_SIDE_FILE"
    E_CODEC = "E_CODEC"
    E_TIMEOUT = "E_TIMEOUT"
    # Voxels.
    E_DTYPE = "E_DTYPE"
    E_SHAPE = "E_SHAPE"
    E_NONFINITE = "E_NONFINITE"
    E_CONSTANT = "E_CONSTANT"
    E_RANGE = "E_RANGE"
    E_SCALING = "E_SCALING"
    # Geometry.
    E_SPACING = "E_SPACING"
    E_AFFINE = "E_AFFINE"
    E_AFFINE_DISAGREE = "E_AFFINE_DISAGREE"
    E_ORIENTATION = "E_ORIENTATION"
    E_GEOMETRY_MISSING = "E_GEOMETRY_MISSING"
    E_CENTER_MISSING = "E_CENTER_MISSING"
    E_CENTER = "E_CENTER"
    E_ROI_OUTSIDE = "E_ROI_OUTSIDE"
    # DICOM series.
    E_NO_IMAGES = "E_NO_IMAGES"
    E_NO_PIXELS = "E_NO_PIXELS"
    E_MIXED_SERIES = "E_MIXED_SERIES"
    E_MIXED_PATIENT = "E_MIXED_PATIENT"
    E_MIXED_ORIENTATION = "E_MIXED_ORIENTATION"
    E_MIXED_SHAPE = "E_MIXED_SHAPE"
    E_MIXED_SPACING = "E_MIXED_SPACING"
    E_SLICE_GAP = "E_SLICE_GAP"
    E_SLICE_DUPLICATE = "E_SLICE_DUPLICATE"
    E_SLICE_UNREADABLE = "E_SLICE_UNREADABLE"
    E_RESCALE_MISSING = "E_RESCALE_MISSING"
    E_PHOTOMETRIC = "E_PHOTOMETRIC"
    # Tables.
    E_ENCODING = "E_ENCODING"
    E_NO_ROWS = "E_NO_ROWS"
    E_CASE_ID = "E_CASE_ID"
    E_SPLIT_VALUE = "E_SPLIT_VALUE"
    E_LABEL_COLUMNS = "E_LABEL_COLUMNS"
    E_LABEL_VALUE = "E_LABEL_VALUE"
    E_LABEL_CONFLICT = "E_LABEL_CONFLICT"
    E_ONE_CLASS = "E_ONE_CLASS"
    E_PATIENT_LEAK = "E_PATIENT_LEAK"
    # Ours.
    E_OUT_OF_ENVELOPE = "E_OUT_OF_ENVELOPE"
    E_INTERNAL = "E_INTERNAL"
    # Warnings: the case is scored, and the row says so.
    W_TRAILING_BYTES = "W_TRAILING_BYTES"
    W_SUFFIX = "W_SUFFIX"
    W_BITPIX = "W_BITPIX"
    W_UNITS = "W_UNITS"
    W_SPACING = "W_SPACING"
    W_SHEAR = "W_SHEAR"
    W_GEOMETRY_MISSING = "W_GEOMETRY_MISSING"
    W_AFFINE_DISAGREE = "W_AFFINE_DISAGREE"
    W_DUPLICATE_FILE = "W_DUPLICATE_FILE"
    W_DUPLICATE_ROW = "W_DUPLICATE_ROW"
    W_DUPLICATE_CONTENT = "W_DUPLICATE_CONTENT"
    W_UNLABELLED = "W_UNLABELLED"
    W_LARGE = "W_LARGE"
    W_PADDING = "W_PADDING"
    W_PHOTOMETRIC = "W_PHOTOMETRIC"
    W_RESCALE_VARIES = "W_RESCALE_VARIES"
    W_CENTER_IN_AIR = "W_CENTER_IN_AIR"
    W_NEAR_ENVELOPE = "W_NEAR_ENVELOPE"


class PipelineError(Exception):
    """Base of every error this package raises on purpose."""

    def __str__(self) -> str:
        return redact(super().__str__())


class UsageError(PipelineError):
    """Wrong usage, configuration or table. Exit code 2."""


class ConfigError(UsageError):
    """A configuration that cannot be meant."""


class TableError(UsageError):
    """A manifest that cannot be used as a whole.

    Attributes:
        code: why, of the closed list.
        reason: the message without the path.
    """

    def __init__(self, code: Code, path: Path | str, reason: str) -> None:
        super().__init__(f"{_one_line(path)}: {code}: {reason}")
        self.code, self.reason = code, reason


class CaseError(PipelineError):
    """One case that cannot be used; the batch goes on.

    Attributes:
        code: why, of the closed list.
        reason: the value found, what was expected and the way out, in one line, without the path.
        warnings: codes of what had been found odd before, which may well explain the refusal; set by who knows them.
    """

    warnings: tuple[Code, ...] = ()

    def __init__(self, code: Code, path: Path | str, reason: str) -> None:
        # The arguments stay the exception's ``args``, so that it survives pickling between processes.
        super().__init__(code, path, reason)
        self.code, self.path, self.reason = code, path, reason

    def __str__(self) -> str:
        return redact(f"{_one_line(self.path)}: {self.code}: {self.reason}")


class ModelError(PipelineError):
    """A model directory that is damaged, foreign or incomplete."""


class CalibrationError(PipelineError):
    """A calibrator that the data do not support."""


class UndefinedMetricError(PipelineError):
    """A statistic that the data do not define (one class only, too few cases, non-finite scores)."""


class UnfinishedError(PipelineError):
    """The job could not finish, through no fault of one case. Exit code 3."""


def _one_line(path: Path | str) -> str:
    """A path whose name holds a line end must not look like a second message."""
    return str(path).replace("\n", "\\n")
