"""Grids of images, pixel by pixel."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

BACKGROUND = 128


def grey(x: Tensor, levels: int) -> Tensor:
    """Turn x in [0, 1) into the uint8 picture of its grey level, black at level 0 and white at the highest."""
    return ((x * levels).floor() * (255 / (levels - 1))).round().to(torch.uint8).cpu()


def tile(images: Tensor, columns: int) -> Image.Image:
    """Lay out uint8 images (N, C, H, W), C = 1 or 3, row by row with lines of one pixel between them."""
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    shape = (rows * (height + 1) + 1, columns * (width + 1) + 1, channels)
    canvas = np.full(shape, BACKGROUND, dtype=np.uint8)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def png(picture: Image.Image) -> bytes:
    """Return the picture as the content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()
