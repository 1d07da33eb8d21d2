"""Find label maps without a telling name: named like a scan of another folder, and holding few whole numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.cases.intake.scans import SurveyedScan
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.imaging.read import open_scan

_MOST_VALUES = 16  # distinct values of a label map


def without_label_maps(scans: Sequence[SurveyedScan]) -> tuple[list[SurveyedScan], list[SurveyedScan]]:
    """Scans, and the label maps among them. Only files that share their name and shape with another are looked into.

    Where all files of a name are label maps they stay scans: a data set of masks has nothing else.
    """
    twins: dict[tuple[str, tuple[int, int, int]], list[SurveyedScan]] = defaultdict(list)
    for scan in scans:
        if scan.files is None:
            twins[scan.names.stem.casefold(), scan.shape].append(scan)
    maps = []
    for group in twins.values():
        if len(group) > 1:
            group_maps = [scan for scan in group if _is_label_map(scan)]
            maps += group_maps if len(group_maps) < len(group) else []
    return [scan for scan in scans if scan not in maps], maps


def _is_label_map(scan: SurveyedScan) -> bool:
    """Whether the middle slices hold few distinct whole numbers."""
    middle = scan.shape[2] // 2
    try:
        voxels = open_scan(scan.path, limits=Limits()).read((slice(None), slice(None), slice(middle, middle + 1)))
    except CaseError:
        return False
    values = np.unique(voxels)
    return values.size <= _MOST_VALUES and bool((values == np.floor(values)).all()) and float(values.min()) >= 0
