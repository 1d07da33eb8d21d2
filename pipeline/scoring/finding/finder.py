"""The search of one whole scan: through the network in windows, and its peaks as candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.cases.case import Case
from pipeline.errors import UnfinishedError
from pipeline.imaging.decoded import DecodedScan
from pipeline.imaging.image import ScanFacts, Warning, carrying
from pipeline.imaging.whole_scans.resampled import ByteArray, as_input
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.detector import STRIDE, DetectorOutput
from pipeline.models.peaks import find_peaks
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.detector_directory import LoadedDetector
from pipeline.scoring.finding.searchable_scan import SearchableScan, read_searchable

# Windows as large as memory allows, because the overlap of neighbouring windows is computed twice.
_LONGEST_WINDOW = 208
_OVERLAP = 0.25
_AXES = (0, 1, 2)
_DECIMALS = 3  # of centres and diameters: a micrometre, so that a table read back gives the same region
_EDGE = 0.5  # voxels: how far the outermost voxels reach beyond their centres


@dataclass(frozen=True, eq=False)
class Found:
    """Result of the search of a scan.

    Attributes:
        candidates: by falling probability of class ``nodule``; may be empty.
        facts: of the scan.
        warnings: of reading.
        measures: of the scan.
    """

    candidates: tuple[Candidate, ...]
    facts: ScanFacts
    warnings: tuple[Warning, ...]
    measures: dict[str, float]


class Finder:
    """Searches whole scans for lesions with one detector.

    Args:
        detector: loaded.
        root: folder that no image may leave, None for no such limit.
        device: for the network.

    Example:
        >>> finder = Finder(load_detector(Path("detector")))  # doctest: +SKIP
        >>> finder.search(Case(case_id="ct", image="ct.nii.gz", path=Path("ct.nii.gz"))).candidates  # doctest: +SKIP
    """

    def __init__(self, detector: LoadedDetector, *, root: Path | None = None, device: str = "cpu") -> None:
        self.detector, self._root, self._device = detector, root, device
        self._network = to_fast_layout(detector.network.to(device)).eval()
        self._grid = detector.description.grid
        self._modality = detector.description.modality

    def search(self, case: Case) -> Found:
        """Search one scan.

        Raises:
            CaseError: with the code of what is wrong; also for a scan that cannot be searched.
        """
        return self.find(self.read(case))

    def read(self, case: Case) -> SearchableScan:
        """Read a scan onto the detector's grid.

        Raises:
            CaseError: with the code of what is wrong; also for a scan that cannot be searched.
        """
        scan = read_searchable(case, self._grid, modality=self._modality, root=self._root)
        if self.detector.envelope is None:
            return scan
        with carrying(scan.warnings):
            warnings = self.detector.envelope.judge(scan.measures, path=scan.scan.path, body_part=scan.scan.body_part)
        return replace(scan, warnings=(*scan.warnings, *warnings))

    def find(self, scan: SearchableScan) -> Found:
        """The candidates of a scan that has been read.

        Raises:
            UnfinishedError: when an output of the network is not finite.
        """
        rules, spacing = self.detector.description.candidates, self._grid.spacing_mm
        output = self._output(scan.voxels)
        if not torch.isfinite(output.heat).all():  # it would have no peak, as if there were no candidate
            raise UnfinishedError("the detector gave no finite number; please report it with this row")
        peaks = find_peaks(output, rules, spacing_mm=spacing)
        places = peaks.voxels @ scan.affine[:3, :3].T + scan.affine[:3, 3]  # (N, 3), RAS mm
        probabilities = np.stack(
            [
                calibrator.apply(column)
                for calibrator, column in zip(self.detector.calibrators, peaks.logits.T, strict=True)
            ],
            axis=1,
        )  # (N, C)
        candidates = [
            Candidate(
                center_mm=(round(x, _DECIMALS), round(y, _DECIMALS), round(z, _DECIMALS)),
                diameter_mm=round(diameter, _DECIMALS),
                probabilities=tuple(row),
            )
            for (x, y, z), diameter, row in zip(
                places.tolist(), peaks.diameters_mm.tolist(), probabilities.tolist(), strict=True
            )
            if _lies_in(scan.scan, (x, y, z))
        ]
        return Found(tuple(candidates), scan.facts, scan.warnings, scan.measures)

    def heat_logits(self, voxels: ByteArray) -> NDArray[np.float64]:
        """Logits (C, r, a, s) of every class in each cell of a scan on the detector's grid."""
        return self._output(voxels).heat.double().numpy()

    @torch.inference_mode()
    def _output(self, voxels: ByteArray) -> DetectorOutput:
        """The detector's output for the whole scan, each part without its batch axis, on the CPU."""
        output = self._searched(voxels)
        if not self.detector.description.network.average_flips:
            return output
        # An odd number of voxels along each axis, so that cells of the mirror image lie on cells of the scan.
        odd = np.pad(voxels, [(0, 1 - length % 2) for length in voxels.shape])
        mirrored = self._searched(np.flip(odd, _AXES))
        sides = [slice(0, length) for length in output.heat.shape[1:]]
        heat, offset, diameter = (part.flip(1, 2, 3)[:, sides[0], sides[1], sides[2]] for part in mirrored)
        return DetectorOutput(
            (output.heat + heat) / 2, (output.offset - offset) / 2, (output.log_diameter + diameter) / 2
        )

    def _searched(self, voxels: ByteArray) -> DetectorOutput:
        """The network's output for one view of the scan."""
        multiple = self.detector.network.side_multiple
        padding = [-length % multiple for length in voxels.shape]  # at the end, so that no cell is moved
        image = torch.from_numpy(as_input(voxels))[None, None]
        image = functional.pad(image, [number for pad in reversed(padding) for number in (0, pad)])
        inferer = SlidingWindowInferer(
            [_window_side(side, multiple) for side in image.shape[2:]],
            sw_batch_size=1,
            overlap=_OVERLAP,
            mode="gaussian",
            sw_device=self._device,
            device="cpu",
        )
        heat, offset, diameter = inferer(image, self._window_output)
        sides = [-(-length // STRIDE) for length in voxels.shape]
        parts = [part[0, :, : sides[0], : sides[1], : sides[2]].float() for part in (heat, offset, diameter)]
        return DetectorOutput(*parts)

    def _window_output(self, window: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._network(window))


def _window_side(side: int, multiple: int) -> int:
    """The shortest window that covers a side with as few windows as the longest one would."""
    if side <= _LONGEST_WINDOW:
        return side
    step = 1 - _OVERLAP
    windows = math.ceil((side / _LONGEST_WINDOW - _OVERLAP) / step)
    return math.ceil(side / (1 + (windows - 1) * step) / multiple) * multiple


def _lies_in(scan: DecodedScan, place: tuple[float, float, float]) -> bool:
    """Whether a place in RAS mm lies in the image: an offset may lead out of it."""
    index = np.linalg.solve(scan.affine, np.array([*place, 1.0]))[:3]
    return bool((index >= -_EDGE).all() and (index <= np.array(scan.shape) - 1 + _EDGE).all())
