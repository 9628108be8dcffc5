"""Feature maps as rows of channels: (B, C, H, W) and (B H W, C), samples and positions in the same order.

Maps of many channels are kept as rows, for which a 1x1 convolution is one product of matrices; functions of each
position alone are the same on both, channels along dimension 1. Views are made by single operations.
"""

from collections.abc import Sequence

from torch import Tensor


def in_layout(x: Tensor, rows: bool, wanted_rows: bool, size: Sequence[int]) -> Tensor:
    """Return x, which is rows or maps, as rows or maps; a copy only if the order of values in memory must change.

    Args:
        x: rows or maps.
        rows: whether x is rows.
        wanted_rows: whether the result is to be rows.
        size: (H, W) of the maps.
    """
    if rows == wanted_rows:
        return x
    height, width = size
    channels = x.shape[1]
    strides = height * width * channels, 1, width * channels, channels
    if wanted_rows:
        if x.stride() == strides:
            return x.as_strided((x.shape[0] * height * width, channels), (channels, 1))
        return x.permute(0, 2, 3, 1).reshape(-1, channels)
    samples = x.shape[0] // (height * width)
    if x.stride() == (channels, 1):
        return x.as_strided((samples, channels, height, width), strides)
    return x.reshape(samples, height, width, channels).permute(0, 3, 1, 2)
