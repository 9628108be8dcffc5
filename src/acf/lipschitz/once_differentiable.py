"""Functions with a gradient in closed form, which refuse in words every derivative beyond that gradient.

torch's own `once_differentiable` refuses only where a cotangent requires grad. In a Hessian cotangents are constants;
there it returns gradients that look like constants, so that second derivatives lose terms without a word.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from typing_extensions import override

from acf.errors import DerivativeError

Gradients = tuple[Tensor | None, ...]


class OnceDifferentiable(torch.autograd.Function):
    """Base of functions that are differentiated once, backward; anything else raises `DerivativeError`.

    A subclass implements `forward(ctx, ...)`, which must pass to `ctx.save_for_backward` every input that its gradient
    depends on, and `gradient(ctx, saved, *cotangents)`, which gets these tensors as `saved` and returns, without graph,
    what `backward` would.

    Attributes:
        advice: what cannot be differentiated, and what to do instead; the message of the error.
    """

    advice: ClassVar[str]
    gradient: ClassVar[Callable[..., Gradients]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.backward = staticmethod(partial(_gradient_once, cls))  # type: ignore[method-assign]

    @classmethod
    @override
    def apply(cls, *args: Any) -> Any:
        refuse_transforms(cls.advice, *(arg for arg in args if isinstance(arg, Tensor)))
        return super().apply(*args)


def _gradient_once(function: type[OnceDifferentiable], ctx: Any, *cotangents: Tensor) -> Gradients:
    """Return the gradient; a graph of it, where asked for, refuses derivatives in all that it depends on."""
    refuse_transforms(function.advice, *cotangents)
    saved = ctx.saved_tensors  # Checkpoints allow this once.
    with torch.no_grad():
        gradients = function.gradient(ctx, saved, *cotangents)
    sources = [t for t in (*saved, *cotangents) if isinstance(t, Tensor) and t.requires_grad]
    if not torch.is_grad_enabled() or not sources:
        return gradients
    given = [gradient for gradient in gradients if gradient is not None]
    refusing = iter(_Refusal.apply(function.advice, len(given), *given, *sources))
    return tuple(None if gradient is None else next(refusing) for gradient in gradients)


class _Refusal(torch.autograd.Function):
    """The first `count` tensors, unchanged; whoever differentiates them, in any of the tensors, gets the advice."""

    @staticmethod
    @override
    def forward(ctx: Any, advice: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.advice = advice
        return tensors[:count]

    @staticmethod
    @override
    def backward(ctx: Any, *cotangents: Tensor) -> Gradients:
        raise DerivativeError(ctx.advice)


def refuse_transforms(advice: str, *tensors: Tensor) -> None:
    """Raise `DerivativeError` with this advice under `torch.func` transforms and for tensors with forward tangents."""
    if is_transformed(*tensors):
        raise DerivativeError(advice)


def is_transformed(*tensors: Tensor) -> bool:
    """Whether a transform of `torch.func` is under way, or a tensor carries a tangent of forward mode."""
    # Outside of forward mode (level -1) there is no need to ask each of perhaps hundreds of tensors.
    return torch._C._are_functorch_transforms_active() or (
        forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )
