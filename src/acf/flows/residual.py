"""The residual block x + g(x) with a contraction g."""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from acf.config import LogDetConfig, TrainingLogDetConfig
from acf.flows.bijection import Bijection, Solved
from acf.flows.fixed_point import Solution, invert
from acf.flows.logdet import Draw, RouletteEstimator, series, surrogate, value_and_neumann
from acf.lipschitz.branch import Branch


class ResidualBlock(Bijection):
    """f(x) = x + g(x), Lip(g) < 1 (arXiv 1811.00995), with the roulette estimate of log|det(I + J_g)|.

    In training mode the log-determinant follows `training` (gradient by Neumann series, activations recomputed in the
    backward pass, where so configured); in evaluation mode it follows `evaluation`, each sample with its own length.

    Args:
        branch: g, with a proven Lipschitz bound.
        shape: (C, H, W) of input and output.
        training: estimator in training mode.
        evaluation: estimator in evaluation mode.
    """

    def __init__(
        self,
        branch: Branch,
        shape: tuple[int, int, int],
        training: TrainingLogDetConfig,
        evaluation: LogDetConfig,
    ) -> None:
        super().__init__()
        self.branch, self.shape = branch, shape
        self.training_log_det, self.evaluation_log_det = training, evaluation
        self._bound: tuple[bytes, float] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W); the log-determinant is an unbiased estimate, and so is its gradient."""
        config = self.training_log_det if self.training else self.evaluation_log_det
        draw = RouletteEstimator.from_config(config).draw(x, per_sample=not self.training)
        if not torch.is_grad_enabled():
            y, value, _ = _evaluate(self.branch, x, draw)
        elif not self.training:
            y, value = series(self.branch, _differentiable(x), draw)
        else:
            y, value = self._with_gradient(x, draw)
        return x + y, value

    def _with_gradient(self, x: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        config = self.training_log_det
        if config.memory_efficient:
            parameters = [p for p in self.branch.parameters() if p.requires_grad]
            return _Recomputed.apply(self.branch, draw, config.neumann_gradient, x, *parameters)
        x = _differentiable(x)
        if not config.neumann_gradient:
            return series(self.branch, x, draw)
        y, value, neumann = value_and_neumann(self.branch, x, draw)
        gradient = surrogate(y, x, draw.probe, neumann)
        return y, value + gradient - gradient.detach()

    def transform(self, x: Tensor) -> Tensor:
        """Return x + g(x) without the cost of the power series."""
        return x + self.branch(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, H, W) with x + g(x) = y; errors as `solve`."""
        return self.solve(y).x

    def recorded_inverse(self, y: Tensor, solved: Solved) -> Tensor:
        """Undo, noting this block's error bounds and evaluations in `solved`."""
        solved[self] = solution = self.solve(y)
        return solution.x

    def solve(self, y: Tensor, tolerance: float | None = None) -> Solution:
        """Solve x + g(x) = y for y (B, C, H, W) by fixed-point iteration, with error bounds.

        Args:
            y: value of the block.
            tolerance: relative l2 error asked for; by default as small as the type of y allows (`invert`).

        Raises:
            NotContractiveError: the proven bound of g is not below 1.
            ConvergenceError: the promised accuracy was not reached.
        """
        return invert(self.branch, y, self.stored_lipschitz(), tolerance)

    def bound(self) -> float:
        """Compute the proven upper bound of Lip(g) from the present weights; infinite if any value is not finite."""
        if not all(tensor.isfinite().all() for tensor in self.branch.state_dict().values()):
            return math.inf
        upper = self.branch.lipschitz_bound(self.shape[1] * self.shape[2])
        return math.inf if math.isnan(upper) else upper

    def stored_lipschitz(self) -> float:
        """Proven upper bound of Lip(g), computed anew only after a weight or buffer has changed.

        Changes are seen in the content itself: torch's version counters miss what is written through `.data`.
        """
        digest = hashlib.blake2b()
        for tensor in self.branch.state_dict().values():
            digest.update(str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        key = digest.digest()
        if self._bound is None or self._bound[0] != key:
            self._bound = (key, self.bound())
        return self._bound[1]


def _differentiable(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().requires_grad_(True)


def _evaluate(branch: Branch, x: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """g(x), estimate and Neumann vector without any graph left behind."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x.detach()
        y, value, neumann = value_and_neumann(branch, x.requires_grad_(True), draw)
    return y.detach(), value, neumann


class _Recomputed(torch.autograd.Function):
    """Branch and log-determinant that keep only x, the probe and one vector; the backward pass recomputes the rest.

    With the Neumann gradient that vector is w and the backward pass costs one forward of g, one product and one second
    derivative, however many terms the series had. Without it the whole series is run again.
    """

    @staticmethod
    def forward(
        ctx: Any, branch: Branch, draw: Draw, neumann_gradient: bool, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, value, neumann = _evaluate(branch, x, draw)
        ctx.branch, ctx.neumann_gradient, ctx.count = branch, neumann_gradient, len(parameters)
        kept = neumann if neumann_gradient else draw.weights
        ctx.save_for_backward(x, draw.probe, kept, *parameters)
        return y, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, kept, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            if ctx.neumann_gradient:
                y = ctx.branch(x)
                value = surrogate(y, x, probe, kept)
            else:
                y, value = series(ctx.branch, x, Draw(probe, kept))
            # A series of no terms is a constant.
            outputs = [(out, grad) for out, grad in ((y, grad_y), (value, grad_value)) if out.requires_grad]
            grads = torch.autograd.grad(
                [out for out, _ in outputs], (x, *parameters), [grad for _, grad in outputs], allow_unused=True
            )
        return (None, None, None, *grads)
