"""Finding the layer at which numbers stop being finite."""

import torch
from torch import Tensor, nn

from acf.errors import TrainingError


def require_finite_gradients(module: nn.Module, norm: float, step: int, x: Tensor) -> None:
    """Do nothing if the gradient norm is finite.

    Args:
        module: the flow, after a backward pass.
        norm: norm of all gradients together.
        step: for the message.
        x: the batch, for finding the first layer with values that are not finite.

    Raises:
        TrainingError: names the first layer whose output is not finite or, if none is, whose gradient is not.
    """
    if norm == norm and abs(norm) != float("inf"):
        return
    layer = _first_bad_output(module, x)
    what = "output" if layer else "gradient"
    layer = layer or _first_bad_gradient(module) or "the loss"
    raise TrainingError(f"step {step}: the {what} of {layer} is not finite")


def _first_bad_gradient(module: nn.Module) -> str | None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return name
    return None


def _first_bad_output(module: nn.Module, x: Tensor) -> str | None:
    found: list[str] = []

    def check(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and any(isinstance(t, Tensor) and not torch.isfinite(t).all() for t in tensors):
                found.append(name)

        return hook

    leaves = [(name, m) for name, m in module.named_modules() if not list(m.children())]
    hooks = [m.register_forward_hook(check(name)) for name, m in leaves]
    try:
        with torch.no_grad():
            # Log-determinants are computed from explicit derivatives, past the layers' forward methods.
            getattr(module, "transform", module)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
