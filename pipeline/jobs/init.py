"""``malignancy init``: a manifest and a configuration to fill in, for one's own scans."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import atomic_write, write_text
from pipeline.imaging.find import find_scans

_MANIFEST, _CONFIG = "manifest.csv", "config.yaml"
_HEADER = (
    "case_id",
    "patient_id",
    "image",
    "label",
    "center_x_mm",
    "center_y_mm",
    "center_z_mm",
    "coordinate_system",
)

_TEMPLATE = """\
# Fill in what is marked CHANGE; every other value is a usable default. Explained in docs/your-data.md.
#   malignancy train {folder}/config.yaml
name: mine # CHANGE: letters, digits, dot, dash
seed: 0
output: runs

data:
  manifest: {folder}/manifest.csv # relative to the folder in which the command is called
  modality: CT # CHANGE: CT, MR, US, XR, mask or other
  label_source: CHANGE whose opinion or which test the label is
  intensities: real
  covariates: {{}} # numbers that you will know of every case when it is scored, as {{diameter_mm: log}}
  splits: {{train: 0.55, validation: 0.15, calibration: 0.15, test: 0.15}}
  split_seed: 0
  cache: {{folder: cache, max_gb: 20.0}} # inputs are prepared once, for all runs

preprocessing:
  dimensions: 3 # CHANGE: 2 for single slices and pictures
  region: lesion # CHANGE: lesion needs the centre columns; image takes the whole scan
  size: [32, 32, 32] # CHANGE: voxels along R, A, S
  spacing_mm: [1.25, 1.25, 1.25] # CHANGE: size x spacing should be a little wider than the largest lesion
  intensity: {{scaling: window, lower: -1000.0, upper: 400.0}} # CHANGE for MR: {{scaling: zscore, lower: null, upper: null}}

augmentation: {{flip_axes: [0, 1, 2], rotate_degrees: 30.0, translate_voxels: 1.0, intensity_shift: 0.02, noise_std: 0.01}}
network: {{name: compact, dropout: 0.2}}
training: {{max_epochs: 30, batch_size: 32, learning_rate: 0.002, early_stopping: {{monitor: log_loss, patience: 10}}, ema_decay: 0.98}}
calibration: {{method: temperature}}
operating_point: {{rule: sensitivity, target: 0.95}}
evaluation: {{baseline_columns: [], subgroups: [], pictures: false}} # pictures shows images of patients in the report; CHANGE: for example baseline_columns: [diameter_mm]
tracking: {{experiment: mine, registered_model: mine}} # CHANGE
"""  # noqa: E501  # lines of the file that a person reads


def init(folder: Path) -> None:
    """Write ``manifest.csv`` (a row for each scan found) and ``config.yaml`` into a folder; nothing is overwritten.

    Raises:
        UsageError: when the folder is missing, holds no scan, or has one of the two files already.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the folder that holds your scans")
    for name in (_MANIFEST, _CONFIG):
        if (folder / name).exists():
            raise UsageError(f"{folder / name}: exists already and is not overwritten; edit it, or move it away")
    scans = [found for found in find_scans(folder) if found.error is None]
    if not scans:
        raise UsageError(f"{folder}: holds no readable scan; expected NIfTI, DICOM, PNG, JPEG or TIFF files")
    with atomic_write(folder / _MANIFEST) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(_HEADER)
        for found in scans:
            rows.writerow([found.case_id, "", found.image(folder), *[""] * (len(_HEADER) - 3)])
    write_text(folder / _CONFIG, _TEMPLATE.format(folder=folder.as_posix()))
    print(f"{folder / _MANIFEST}: {len(scans)} scans; fill in patient_id, label and, for lesion models, the centre")
    print(f"{folder / _CONFIG}: change what is marked CHANGE, then: malignancy train {folder / _CONFIG}")
