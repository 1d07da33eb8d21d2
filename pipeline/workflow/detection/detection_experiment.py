"""The experiment of a detector's training, checked before anything heavy is imported and any scan is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cases.case import RESERVED_COLUMNS, Case
from pipeline.cases.scan_table import ScanTable, is_ignored, lesion_diameter_mm, lesion_flag, read_scan_table
from pipeline.cases.splits import Splits, assign_scan_splits
from pipeline.config.detection import DetectionConfig
from pipeline.config.file import load_detection_config, missing_file
from pipeline.config.inputs import SPLITS
from pipeline.errors import Code, ConfigError, TableError
from pipeline.workflow.judging.table_truth import truth_differences


@dataclass(frozen=True, eq=False)
class DetectionExperiment:
    """A configuration with the tables that it names, and which scan is in which split.

    Attributes:
        config: as read.
        table: scans, and the lesions in them.
        splits: of all scans.
    """

    config: DetectionConfig
    table: ScanTable
    splits: Splits

    def of(self, split: str) -> list[Case]:
        """The scans of one split."""
        return [case for case in self.table.scans.cases if self.splits.of[case.case_id] == split]

    def describe(self) -> list[str]:
        """One line on what each split holds."""
        parts = []
        for split in SPLITS:
            scans = self.of(split)
            lesions = [lesion for scan in scans for lesion in self.table.lesions_of[scan.case_id]]
            counted = sum(not is_ignored(lesion) for lesion in lesions)
            parts.append(f"{split} {len(scans)} scans with {counted} lesions")
        return [f"{', '.join(parts)} (splits: {self.splits.source})"]


def read_detection_experiment(config_path: Path, overrides: Sequence[str] = ()) -> DetectionExperiment:
    """Read a configuration and its tables, and draw the splits; no scan is opened.

    Args:
        config_path: the configuration, with ``task: detection``.
        overrides: ``section.key=value``.

    Raises:
        UsageError: for every fault of configuration or tables that would stop the training later.
    """
    config = load_detection_config(config_path, overrides)
    for key, path in (("scans", config.data.scans), ("lesions", config.data.lesions)):
        if not path.exists():
            raise missing_file(config_path, f"data.{key}", path)
    table = read_scan_table(config.data.scans, config.data.lesions)
    _require_columns(config_path, config, table)
    for lesion in table.lesions.cases:
        _require_learnable(config, table, lesion)
    differences = truth_differences(
        table.scans.facts,
        label_source=config.data.label_source,
        intensities=config.data.intensities,
        of="the configuration",
    )
    if differences.intensities:
        raise ConfigError(
            f"{config_path}: data.intensities: {differences.intensities}; correct it, or leave those scans out"
        )
    with_lesion = {name for name, lesions in table.lesions_of.items() if not all(map(is_ignored, lesions))}
    splits = assign_scan_splits(table.scans, with_lesion, config.data.splits, seed=config.data.split_seed)
    return DetectionExperiment(config, table, splits)


def _require_columns(config_path: Path, config: DetectionConfig, table: ScanTable) -> None:
    """Refuse classes and groups that the lesions' table has no column for."""
    for key, columns in (("classes", config.classes[1:]), ("evaluation.groups", config.evaluation.groups)):
        for column in columns:
            if column not in table.lesions.columns or column in RESERVED_COLUMNS:
                present = ", ".join(table.lesions.columns) or "none"
                raise ConfigError(
                    f"{config_path}: {key}: {table.lesions.path} has no column {column!r} (extra columns: {present}); "
                    "correct or remove it"
                )


def _require_learnable(config: DetectionConfig, table: ScanTable, lesion: Case) -> None:
    """Refuse a lesion without a diameter, or with an attribute that is neither yes, no nor blank."""
    path = table.lesions.path
    if lesion_diameter_mm(lesion) is None:
        reason = f"lesion {lesion.case_id!r} has no diameter_mm, which a detector learns; fill it in"
        raise TableError(Code.E_RANGE, path, reason)
    for column in config.classes[1:]:
        try:
            lesion_flag(lesion, column)
        except ValueError as error:
            reason = f"lesion {lesion.case_id!r}: {column}: {error}; write 1, 0 or leave it blank"
            raise TableError(Code.E_LABEL_VALUE, path, reason) from None
