"""The residual block x + g(x) with a contraction g."""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from acf.flows.bijection import Bijection, Solved
from acf.flows.fixed_point import Solution, invert
from acf.flows.logdet import RouletteEstimator, WeightedProbe, series, surrogate, value_and_neumann
from acf.flows.power_series import estimate, with_gradient
from acf.lipschitz.branch import Branch
from acf.settings.config import LogDetConfig, TrainingLogDetConfig


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
        estimator = RouletteEstimator.from_config(config)
        draws = estimator.weighted_probes(x, per_sample=not self.training)
        if not torch.is_grad_enabled():
            y, value = estimate(self.branch, x, draws)
        elif self.training:
            y, value = self._with_gradient(x, draws[0])
        else:
            y, value = series(self.branch, _differentiable(x), draws)
        return x + y, value

    def _with_gradient(self, x: Tensor, draw: WeightedProbe) -> tuple[Tensor, Tensor]:
        config = self.training_log_det
        if config.memory_efficient and config.neumann_gradient:
            return with_gradient(self.branch, x, draw, config.bfloat16)
        if config.memory_efficient:
            parameters = [p for p in self.branch.parameters() if p.requires_grad]
            return _Recomputed.apply(self.branch, draw, x, *parameters)
        x = _differentiable(x)
        if not config.neumann_gradient:
            return series(self.branch, x, [draw])
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


class _Recomputed(torch.autograd.Function):
    """Branch and log-determinant that keep x and the draw only; the backward pass runs the whole series again."""

    @staticmethod
    def forward(ctx: Any, branch: Branch, draw: WeightedProbe, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        y, value = estimate(branch, x, [draw])
        ctx.branch = branch
        ctx.save_for_backward(x, draw.probe, draw.weights, *parameters)
        return y, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, weights, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y, value = series(ctx.branch, x, [WeightedProbe(probe, weights)])
            # A series of no terms is a constant.
            outputs = [(out, grad) for out, grad in ((y, grad_y), (value, grad_value)) if out.requires_grad]
            grads = torch.autograd.grad(
                [out for out, _ in outputs], (x, *parameters), [grad for _, grad in outputs], allow_unused=True
            )
        return (None, None, *grads)
