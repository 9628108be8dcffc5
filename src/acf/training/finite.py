"""Stopping at a step whose numbers are not finite, with the name of the layer that is to blame."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acf.errors import TrainingError


class FiniteSteps:
    """Whether loss and gradient of every step were finite, known on the device and read by the host now and then.

    Reading makes the host wait for the device. Until it does, all steps from the first one that is not finite have to
    be without effect, for which `observe` returns what optimisers of torch take.

    Args:
        step: number of steps done before.
        device: where the steps are computed.
    """

    def __init__(self, step: int, device: torch.device) -> None:
        self._start = step
        self._finite = torch.tensor(True, device=device)
        self._count = torch.tensor(0, device=device)

    def observe(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """Take loss and gradient norm of a step, both scalars, into account.

        Returns:
            1.0 if this step or an earlier one was not finite, 0.0 otherwise, as the `found_inf` of an optimiser.
        """
        self._finite &= loss.isfinite() & gradient_norm.isfinite()
        self._count += self._finite
        return (~self._finite).float()

    def first_bad_step(self) -> int | None:
        """Return the number of the first step that was not finite, None if there is none; waits for the device."""
        finite, count = torch.stack([self._finite.long(), self._count]).tolist()
        return None if finite else self._start + count


def not_finite(module: nn.Module, step: int, batches: Sequence[Tensor]) -> TrainingError:
    """Return the error of a step whose loss or gradient is not finite.

    It names the first layer with an output that is not finite; if there is none, the first parameter with such a
    gradient; if there is none either, the loss.

    Args:
        module: the flow, after the backward pass, its gradient not clipped yet.
        step: number of the step, for the message.
        batches: images (B, C, H, W) in [0, 1) of the step, passed through the flow again to find the layer.
    """
    layer = next(filter(None, (_first_layer_with_bad_output(module, x) for x in batches)), None)
    what = "output" if layer else "gradient"
    place = layer or _first_parameter_with_bad_gradient(module) or "the loss"
    return TrainingError(f"step {step}: the {what} of {place} is not finite")


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
            getattr(module, "classify_unchecked", getattr(module, "transform", module))(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
