"""Reproducible random inputs, which leave torch's global generator alone."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class NoiseOfTheHost(TorchDispatchMode):
    """Within, what torch draws at random on any device is drawn on the CPU, so that devices can be compared."""

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        tensors = [value for value in args if isinstance(value, Tensor)]
        device = tensors[0].device if tensors else torch.device(kwargs.get("device") or "cpu")
        host_args = [value.cpu() if isinstance(value, Tensor) else value for value in args]
        drawn = func(*host_args, **{**kwargs, **({"device": "cpu"} if "device" in kwargs else {})})
        if func._schema.is_mutable:
            return args[0].copy_(drawn)
        return drawn.to(device)
