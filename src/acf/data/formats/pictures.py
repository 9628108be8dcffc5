"""Images in memory, of whatever kind a library gives them as, to images of PIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from acf.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


def as_picture(image: Any, where: str) -> Image.Image:
    """Return an image as one of PIL.

    Args:
        image: one of PIL, a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W); uint8, or real numbers in
            [0, 1], of which x becomes round(255 x).
        where: what to call it in messages.

    Raises:
        DataError: it is of another kind, or has values that are no grey levels.
    """
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        values = image.numpy(force=True)
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise DataError(f"{where} is a {type(image).__name__}; only images of PIL, tensors and arrays can be read")
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)) or 0 in values.shape:
        raise DataError(f"{where} has shape {tuple(image.shape)}, which is not that of a grey or colour image")
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # NaN as well
            raise DataError(f"{where} has values outside [0, 1]; let no transform standardise the images")
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise DataError(f"{where} has values of {values.dtype}; they have to be uint8, or real numbers in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(values))
