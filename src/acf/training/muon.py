"""Muon: steps along momentum whose singular values are made nearly equal."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.precision import autocast_off

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Descent in the spectral norm (arXiv 2502.16982; arXiv 2507.13338).

    The kernel (out, in, k, k) of a convolution counts as the matrix (out, in k k). With the gradient G of a matrix W,
    its momentum M, m = `momentum` and r = the learning rate a step is

        M <- m M + (1 - m) G,
        W <- W - r sqrt(max(1, out / in)) orthogonalised(m M + (1 - m) G).

    The step has singular values near r, whatever the size of the gradient: directions in which gradients are small are
    learnt as fast as the others, and no singular value of a weight runs away from the others, which spectral
    normalisation would then shrink.

    Matrices of one shape are stacked, so that a step is a few operations for each shape, and none reads a value on the
    host. `torch.optim.Muon` takes matrices only, one by one, in bfloat16. A parameter without gradient counts as one
    with gradient 0, if another of its shape has one.

    Attributes:
        found_inf: a tensor on the parameters' device, as `torch.amp.GradScaler` sets it for fused optimisers: where it
            is 1 the step changes neither weights nor momentum, whatever the gradients are. None stands for 0.

    Args:
        params: parameters with at least two dimensions, or groups of them.
        lr: learning rate, the size of a step in the spectral norm.
        momentum: decay rate m of the moving average of gradients, in [0, 1).

    Raises:
        ValueError: a parameter is not a matrix or kernel.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.found_inf: Tensor | None = None
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.dim() < 2:
                raise ValueError(f"Muon moves matrices and kernels, got a parameter of shape {tuple(parameter.shape)}")

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            stacks: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                stacks.setdefault((p.shape, p.dtype, p.device), []).append(p)
            for parameters in stacks.values():
                if any(p.grad is not None for p in parameters):
                    self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Move parameters of one shape; their momenta are one tensor, in the state of the first of them."""
        first = parameters[0]
        gradients = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]).flatten(2)
        momentum = self.state[first].setdefault("momentum", torch.zeros_like(gradients))
        rate, taken = group["lr"], torch.ones((), dtype=first.dtype, device=first.device)
        if self.found_inf is not None:
            taken = 1 - self.found_inf.to(first.dtype)
            gradients = gradients.masked_fill(self.found_inf.bool(), 0.0)
        new_share = taken * (1 - group["momentum"])
        momentum.lerp_(gradients, new_share)
        out, inputs = momentum.shape[1:]
        with autocast_off(first.device.type):
            step = orthogonalised(gradients.lerp(momentum, group["momentum"])) * (-rate * max(1.0, out / inputs) ** 0.5)
        torch._foreach_add_(parameters, list((taken * step).view(-1, *first.shape).unbind()))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return about U V^T for matrices (..., out, in) with singular value decompositions U S V^T; zeros stay zeros.

    Five steps of the iteration X <- a X + b (X X^T) X + c (X X^T)^2 X from X / |X|_F, whose coefficients raise small
    singular values fastest instead of converging: values above 0.01 |X|_F end between 0.6 and 1.25 (K. Jordan et al.,
    "Muon: an optimizer for hidden layers in neural networks", 2024). `acf.lipschitz.orthogonal_linear.nearest_isometry`
    converges, at twice the products.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.square().sum((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
