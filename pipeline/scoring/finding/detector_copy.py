"""Copy a detector's directory, adding the probability of a scan that was fitted after its training."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.files import atomic_folder
from pipeline.scoring.description_file import JSON_NAME
from pipeline.scoring.finding.detector_description import (
    DetectorDescription,
    detector_digest,
    read_detector_description,
)


def copy_with_scan_probability(source: Path, target: Path, fitted: ScanProbability) -> DetectorDescription:
    """Copy a detector's directory with a probability of a scan; its candidates do not change.

    Args:
        source: the detector's directory.
        target: new folder.
        fitted: with one classifier's probabilities, on held-out scans.

    Returns:
        The new description, with another model digest.

    Raises:
        ModelError: when the source is damaged.
        FileExistsError: when the target exists and is not an empty folder.
    """
    values = read_detector_description(source).model_dump(mode="json", exclude_unset=True)
    values["scan_probability"] = fitted.to_json()
    values["digests"] = values["digests"] | {"model": detector_digest(values)}
    description = DetectorDescription.model_validate(values, strict=False)
    with atomic_folder(target, private=False) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        text = description.model_dump_json(indent=1, exclude_unset=True)
        (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    return description
