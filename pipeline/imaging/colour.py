"""Convert colours to grey: unchanged where the channels are equal, by their luminance elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# ITU-R BT.601 in 65536ths, as Pillow has it; they add up to 65536, so that equal channels keep their value.
_RED, _GREEN, _BLUE = 19595, 38470, 7471


def grey_of_rgb(channels: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Grey values of red, green and blue, in the channels' own depth.

    Args:
        channels: unsigned whole numbers or floats, the last axis has red, green and blue.

    Returns:
        The values, and whether they are luminances of something coloured.
    """
    red, green, blue = (channels[..., number] for number in range(3))
    if (red == green).all() and (green == blue).all():
        return red, False
    if channels.dtype.kind == "f":
        return (red * _RED + green * _GREEN + blue * _BLUE) / 65536, True
    wide = red.astype(np.int64) * _RED + green.astype(np.int64) * _GREEN + blue.astype(np.int64) * _BLUE
    return (wide + 0x8000 >> 16).astype(channels.dtype), True


def grey_of_ybr(luminance: NDArray[Any], chrominance: NDArray[Any], bits: int) -> tuple[NDArray[Any], bool]:
    """Grey values of YCbCr: the luminance, and whether the chrominance shows colour."""
    return luminance, bool((chrominance != 1 << (bits - 1)).any())
