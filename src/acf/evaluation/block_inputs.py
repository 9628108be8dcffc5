"""What modules within a flow are given while it transforms images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def watching(modules: Sequence[nn.Module], see: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """While this context lasts, call `see` with each of `modules` that is about to be called, and with its input."""
    hooks = [module.register_forward_pre_hook(lambda module, inputs: see(module, inputs[0])) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
