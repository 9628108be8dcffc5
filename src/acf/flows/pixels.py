"""Refusing what is no batch of images of a flow, before any layer has seen it."""

from torch import Tensor

from acf.errors import InputError


def require_images(x: Tensor, shape: tuple[int, int, int]) -> None:
    """Check that x is a floating-point tensor (B, *shape).

    Raises:
        InputError: says what was expected and what was given.
    """
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        raise InputError(f"expected images of shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"expected floating-point images in [0, 1), got {x.dtype}; see acf.bits_per_dim for uint8")


def require_pixels(x: Tensor, domain: tuple[float, float]) -> None:
    """Check that all values of x lie in `domain`, which neither NaN nor infinity does, by one transfer from its device.

    On the meta device and under `torch.func.vmap` there are no values to look at, and nothing is checked.

    Raises:
        InputError: says which values were found and how to make pixels of them.
    """
    if x.numel() == 0 or x.is_meta:
        return
    low, high = x.detach().aminmax()
    try:
        inside = bool((low >= domain[0]) & (high <= domain[1]))
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return
    if not inside:
        raise InputError(f"expected images with values in [0, 1), {_found(x.detach())}")


def _found(x: Tensor) -> str:
    broken = (~x.isfinite()).flatten(1)
    if broken.any():
        images = broken.any(1).nonzero().flatten().tolist()
        named = ", ".join(map(str, images[:5])) + (", ..." if len(images) > 5 else "")
        return f"got {int(broken.sum())} of {x.numel()} that are NaN or infinite, in images {named}; leave these out"
    low, high = (float(end) for end in x.aminmax())
    if low >= 0:
        advice = "divide k = 0, ..., n - 1 grey levels by n (256 for 8 bits), after adding noise in [0, 1)"
    elif low >= -1 and high <= 1:
        advice = "map [-1, 1] to [0, 1] by (x + 1) / 2"
    else:
        advice = "undo the normalisation that images were given"
    return f"got values from {low:.4g} to {high:.4g}: {advice}"
