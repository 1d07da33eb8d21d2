"""Run a detector over a whole volume: in one pass where it fits into memory, else in slabs that overlap."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pipeline.models.detector import STRIDE, Detector, DetectorOutput

MOST_VOXELS = 14_000_000  # of one pass: about 1 GB of features at the default width
_LEVELS = 255.0


@torch.inference_mode()
def search_volume(
    network: Detector, voxels: NDArray[np.uint8], *, most_voxels: int = MOST_VOXELS, bf16: bool = False
) -> DetectorOutput:
    """Output of a detector for every cell of a volume, each part without its batch axis, float32 on the CPU.

    Cells beyond the volume's end, which padding to ``side_multiple`` adds, are left out. Slabs give what one pass
    gives, because each of them reaches beyond its own cells by the detector's halo.

    Args:
        network: in evaluation mode.
        voxels: (R, A, S), 0 to 255.
        most_voxels: of one pass.
        bf16: compute in bf16, as during training.
    """
    multiple, device = network.side_multiple, next(network.parameters()).device
    length = voxels.shape[2]
    plane = np.prod([-(-side // multiple) * multiple for side in voxels.shape[:2]])
    slab = max(multiple, int(most_voxels // plane) // multiple * multiple)
    if slab < length:
        slab = max(multiple, slab - 2 * network.halo)
    parts = []
    for start in range(0, length, slab):
        first = max(0, start - network.halo)
        piece = torch.from_numpy(np.ascontiguousarray(voxels[:, :, first : start + slab + network.halo]))
        image = piece.to(device)[None, None].float().div_(_LEVELS)
        pads = [value for side in reversed(image.shape[2:]) for value in (0, -side % multiple)]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            output = network(functional.pad(image, pads))
        sides = [-(-side // STRIDE) for side in (*voxels.shape[:2], min(slab, length - start))]
        skip = (start - first) // STRIDE
        parts.append([part[0, :, : sides[0], : sides[1], skip : skip + sides[2]].float().cpu() for part in output])
    return DetectorOutput(*(torch.cat(pieces, dim=3) for pieces in zip(*parts, strict=True)))
