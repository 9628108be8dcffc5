"""Elementwise functions that become one kernel on CUDA.

On a GPU an elementwise operation costs the time that its operands take through memory, so a chain of them costs several
times what one kernel with all of them does. CPUs keep the intermediate results in their caches.
"""

import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which on CUDA runs as the kernel that `torch.compile` makes of it for all shapes.

    Where no kernel can be made, as without a C compiler, a warning says so and the function runs as it is.

    Args:
        function: elementwise, of tensors on one device, the first argument among them.
    """

    @cache
    def compiled() -> Callable[P, R]:
        return torch.compile(function, dynamic=True)

    failed = False

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal failed
        if failed or not getattr(args[0], "is_cuda", False):
            return function(*args, **kwargs)
        try:
            return compiled()(*args, **kwargs)
        except Exception as error:  # the compiler's errors have many types
            failed = True
            warnings.warn(
                f"{function.__name__} runs as several kernels, slower: no kernel could be made of it "
                f"({str(error).splitlines()[0]})",
                stacklevel=2,
            )
            return function(*args, **kwargs)

    return call
