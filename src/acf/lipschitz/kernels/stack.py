"""`torch.stack` with a backward pass of one operation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.once_differentiable import is_transformed


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return torch.stack(tensors), whose gradient is unbound in one operation instead of selected once per tensor."""
    if is_transformed(*tensors):
        return torch.stack(list(tensors))
    result: Tensor = _Stack.apply(*tensors)
    return result


class _Stack(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        return torch.stack(tensors)

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.unbind()
