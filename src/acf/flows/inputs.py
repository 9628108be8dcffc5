"""Refusing what is no batch of a flow's images or vectors, before any layer has seen it."""

import torch
from torch import Tensor

from acf.errors import InputError


def require_form(x: Tensor, shape: tuple[int, ...]) -> None:
    """Check that x is a floating-point tensor (B, *shape), with the shape (C, H, W) of images or (D,) of vectors.

    Raises:
        InputError: says what was expected and what was given.
    """
    what, advice = ("images", " in [0, 1)") if len(shape) == 3 else ("vectors", "")
    if x.dim() != 1 + len(shape) or tuple(x.shape[1:]) != shape:
        raise InputError(f"expected {what} of shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        advice += f", got {x.dtype}" + ("; see acf.bits_per_dim for uint8" if len(shape) == 3 else "; convert them")
        raise InputError(f"expected floating-point {what}{advice}")


def require_finite(x: Tensor) -> None:
    """Check that all values of x are finite, by one transfer from its device; where there are none, check nothing.

    Raises:
        InputError: says how many are not, and in which vectors.
    """
    largest = torch.finfo(x.dtype).max
    if not lies_within(x, (-largest, largest)):
        raise InputError(f"expected finite values, {_broken(x.detach(), 'vectors')}")


def require_pixels(x: Tensor, domain: tuple[float, float]) -> None:
    """Check that all values of x lie in `domain`, which neither NaN nor infinity does, by one transfer from its device.

    Where there are no values to look at (`lies_within`), nothing is checked.

    Raises:
        InputError: says which values were found and how to make pixels of them.
    """
    if not lies_within(x, domain):
        raise InputError(f"expected images with values in [0, 1), {_found(x.detach())}")


def lies_within(x: Tensor, domain: tuple[float, float]) -> bool:
    """Return whether all values lie in `domain`, by one transfer from the device of x.

    It is true where there are none to look at: in an empty batch, on the meta device, under `torch.func.vmap`, and in
    `torch.export`, whose program is made of operations and not of values.
    """
    if torch.compiler.is_exporting() or x.numel() == 0 or x.is_meta:
        return True
    low, high = x.detach().aminmax()
    try:
        return bool((low >= domain[0]) & (high <= domain[1]))
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return True


def _broken(x: Tensor, what: str) -> str:
    """Which samples have values that are not finite, in words; an empty text where there are none."""
    broken = (~x.isfinite()).flatten(1)
    if not broken.any():
        return ""
    samples = broken.any(1).nonzero().flatten().tolist()
    named = ", ".join(map(str, samples[:5])) + (", ..." if len(samples) > 5 else "")
    return f"got {int(broken.sum())} of {x.numel()} that are NaN or infinite, in {what} {named}; leave these out"


def _found(x: Tensor) -> str:
    if broken := _broken(x, "images"):
        return broken
    low, high = (float(end) for end in x.aminmax())
    if low >= 0:
        advice = "divide k = 0, ..., n - 1 grey levels by n (256 for 8 bits), after adding noise in [0, 1)"
    elif low >= -1 and high <= 1:
        advice = "map [-1, 1] to [0, 1] by (x + 1) / 2"
    else:
        advice = "undo the normalisation that images were given"
    return f"got values from {low:.4g} to {high:.4g}: {advice}"
