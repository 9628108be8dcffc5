"""Pictures of images side by side."""

import io
import math

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

BACKGROUND = 128
"""Grey value of the lines between images."""


def grey(x: Tensor, levels: int) -> Tensor:
    """Return round(255 k / (levels - 1)) with k = floor(x levels), so that level 0 is black and the highest white.

    Args:
        x: values in [0, 1), any shape, on any device.
        levels: number of grey levels, at least 2.

    Returns:
        uint8 of the shape of x, on the CPU.
    """
    return ((x * levels).floor() * (255 / (levels - 1))).round().to(torch.uint8).cpu()


def tile(images: Tensor, columns: int) -> Image.Image:
    """Return one picture of all images, row by row, with lines of one pixel between and around them.

    Args:
        images: uint8 (N, C, H, W) on the CPU, C = 1 (grey) or 3 (red, green, blue).
        columns: number of images in a row.
    """
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    shape = (rows * (height + 1) + 1, columns * (width + 1) + 1, channels)
    canvas = np.full(shape, BACKGROUND, dtype=np.uint8)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def png(picture: Image.Image, **texts: str) -> bytes:
    """Return the picture as the content of a PNG file that has `texts` as text chunks."""
    content, information = io.BytesIO(), PngInfo()
    for key, text in texts.items():
        information.add_text(key, text)
    picture.save(content, format="PNG", pnginfo=information)
    return content.getvalue()
