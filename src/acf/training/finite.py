"""Stopping at a step whose numbers are not finite, with the name of the layer that is to blame."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acf.errors import TrainingError


def require_finite_step(
    module: nn.Module, bits_per_dim: float, gradient_norm: float, step: int, batches: Sequence[Tensor]
) -> None:
    """Do nothing if loss and gradient of a training step are finite.

    Args:
        module: the flow, after the backward pass.
        bits_per_dim: the loss.
        gradient_norm: norm of all gradients together.
        step: number of the step, for the message.
        batches: images (B, C, H, W) in [0, 1) of the step, passed through the flow again to find the layer.

    Raises:
        TrainingError: names the first layer with an output that is not finite; if there is none, the first parameter
            with such a gradient; if there is none either, the loss.
    """
    if math.isfinite(bits_per_dim) and math.isfinite(gradient_norm):
        return
    layer = next(filter(None, (_first_layer_with_bad_output(module, x) for x in batches)), None)
    what = "output" if layer else "gradient"
    place = layer or _first_parameter_with_bad_gradient(module) or "the loss"
    raise TrainingError(f"step {step}: the {what} of {place} is not finite")


def _first_parameter_with_bad_gradient(module: nn.Module) -> str | None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return name
    return None


def _first_layer_with_bad_output(module: nn.Module, x: Tensor) -> str | None:
    found: list[str] = []

    def hook_of(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if any(isinstance(t, Tensor) and not torch.isfinite(t).all() for t in tensors):
                found.append(name)

        return hook

    leaves = [(name, m) for name, m in module.named_modules() if not list(m.children())]
    hooks = [m.register_forward_hook(hook_of(name)) for name, m in leaves]
    try:
        with torch.no_grad():
            # The forward pass of training computes log-determinants from explicit derivatives and so does not call
            # the layers' forward methods, on which the hooks are.
            getattr(module, "transform", module)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
