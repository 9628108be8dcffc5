"""The floating-point types in which bounds hold: float32 and float64, with autocast off."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from acf.errors import InputError

REDUCED = (torch.float16, torch.bfloat16)


def autocast_off(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast on this type of device: bounds allow for the rounding of float32, not of less.

    Code that mixes precisions can so call layers and flows anywhere, with the results that they have outside of it.
    """
    if not _autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def refuse_backward_in_autocast(y: Tensor) -> None:
    """Have the backward pass from y raise InputError under autocast, which would reduce the precision of gradients.

    The forward pass can be shielded from autocast, but the steps of a backward pass that torch itself takes cannot.
    """
    if y.requires_grad:
        y.register_hook(_refuse_autocast)


def _refuse_autocast(grad: Tensor | None) -> None:
    if grad is not None and _autocast_enabled(grad.device.type):  # None where a result was not used
        raise InputError("backward() runs under torch.autocast, in too low a precision for flows: call it outside")


def require_full_precision(x: Tensor, parameter: Tensor | None, name: str) -> None:
    """Check that x and the module that it is given to compute in one type, float32 or float64.

    Args:
        x: the input.
        parameter: a parameter of the module; None if it has none.
        name: of the module, for the message.

    Raises:
        InputError: one of them is float16 or bfloat16, or their types differ.
    """
    dtype = x.dtype if parameter is None else parameter.dtype
    require_full_weights(parameter, name)
    if x.dtype != dtype or dtype in REDUCED:
        wanted = "float32 or float64" if parameter is None else _name(dtype)
        raise InputError(f"this {name} computes in {wanted} but was given {_name(x.dtype)}; convert the input or it")


def require_full_weights(parameter: Tensor | None, name: str) -> None:
    """Check that the weights of a module are float32 or float64.

    Raises:
        InputError: `parameter`, one of them, is float16 or bfloat16.
    """
    if parameter is not None and parameter.dtype in REDUCED:
        raise InputError(
            f"the weights of this {name} are {_name(parameter.dtype)}, which rounds by more than its proofs allow for: "
            "convert it by .float() or .double() (the setting bfloat16 of training_log_det is the fast option)"
        )


def first_parameter(module: nn.Module) -> Tensor | None:
    """Return the first parameter of a module; None if it has none."""
    return next(module.parameters(), None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _autocast_enabled(device_type: str) -> bool:
    return device_type != "meta" and torch.is_autocast_enabled(device_type)
