"""The exceptions of this package, in one tree.

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

from pathlib import Path

from pipeline.codes import Code as Code
from pipeline.redaction import redact


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
        warnings: codes of earlier warnings, which may explain the refusal; set by `carrying`.
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
    """A path in one line: a line end in a name must not look like a second message."""
    return str(path).replace("\n", "\\n")
