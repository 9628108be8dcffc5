"""Jacobians by automatic differentiation of the map as a whole, which share no code with the package."""

from collections.abc import Callable

import torch
from torch import Tensor


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    """Matrix (values of the output, values of the input) at one sample x (1, ...).

    With `create_graph` it can be differentiated again, with respect to x and to weights.
    """
    matrix = torch.autograd.functional.jacobian(lambda t: function(t).flatten(), x, create_graph=create_graph)
    return matrix.flatten(1)


def jacobian_norm(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Largest singular value of the Jacobian at one sample x (1, ...)."""
    return float(torch.linalg.matrix_norm(jacobian(function, x), 2))
