"""The monotone block sqrt(2) (I + g)^-1(sqrt(2) x) - x with a contraction g."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from typing_extensions import override

from acf.errors import ConvergenceError
from acf.flows.branch_gradient import joined, part, samples_at_a_time
from acf.flows.contractive import ContractiveBlock, UnsolvedBlockError
from acf.flows.fixed_point import Iterate, Solution, StoppingRule, invert, iterate_each
from acf.flows.implicit import MONOTONE_ONCE, SolutionOfMonotoneBlock, differentiable_solution
from acf.flows.log_det_form import MONOTONE
from acf.flows.logdet import WeightedProbe
from acf.flows.monotone_gradient import at_solution, differentiable_value_and_log_det_at
from acf.flows.prepared import Prepared
from acf.lipschitz.first_batch import start, without_first_batch
from acf.lipschitz.layer import Tensors
from acf.lipschitz.not_compiled import not_compiled
from acf.lipschitz.once_differentiable import refuse_transforms
from acf.lipschitz.precision import autocast_off

SQRT2 = math.sqrt(2)
SECANTS = 3
"""Secants of the forward map's careful iteration; `benchmarks/monotone.py` counts evaluations with more and fewer."""
EVALUATION_RESIDUAL = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Largest residual of the forward map's iteration in evaluation mode, relative to max(1, sqrt(2) |x|)."""


class MonotoneBlock(ContractiveBlock):
    """f(x) = sqrt(2) w - x with w + g(w) = sqrt(2) x, Lip(g) <= L < 1 (Monotone Flows, arXiv 2210.08176).

    It is the graph of g turned by 45 degrees: x = (w + g(w)) / sqrt(2) and f(x) = (w - g(w)) / sqrt(2). So its Jacobian
    is (I - J) (I + J)^-1 with J that of g at w, its log-determinant log det(I - J) - log det(I + J), and its gain lies
    between (1 - L) / (1 + L) and (1 + L) / (1 - L), where that of a residual block lies between 1 - L and 1 + L
    (docs/mathematics.md, section 15).

    Either direction solves an equation by iteration. The value is that of (w - g(w)) / sqrt(2) at the last point w: it
    and its log-determinant are exactly those at a point near x, at a distance of the residual / sqrt(2). In training
    the iteration stops at the residual `training.solve_residual`, in evaluation at that of rounding.
    """

    log_det_form = MONOTONE
    inverse_once = MONOTONE_ONCE

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        """Return (f(x), log_abs_det); the latter is an unbiased estimate in nats, and so is its gradient."""
        inputs = prepared.blocks.get(self) if prepared is not None else None
        tensors = self.branch.effective_tensors() if inputs is None else inputs.tensors
        config = self.training_log_det
        explicit = config.estimator == "series" and config.neumann_gradient and config.memory_efficient
        if self.training and explicit and self._has_derivatives(x):
            return self._in_training(x, self._training_probe(x, inputs), tensors)
        w = self._centre(x, tensors)
        g, log_abs_det = self.branch_and_log_det(w, prepared)
        return (w - g) / SQRT2, log_abs_det

    @not_compiled
    def _in_training(self, x: Tensor, weighted_probe: WeightedProbe, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Return (f(x), estimate), whose explicit gradients share one iteration."""
        self._start(x)
        reduced = self.training_log_det.bfloat16 and self.branch.supports_bfloat16
        dtype, rule = torch.bfloat16 if reduced else x.dtype, self._rule(x.dtype)
        with torch.inference_mode(False), torch.no_grad(), self._iterating(x):
            solution = at_solution(
                self.branch,
                SQRT2 * x,
                rule,
                weighted_probe,
                dtype,
                tensors,
                careful=lambda: self.centre(x, tensors).x,
                graphs=self.cuda_graphs if x.is_cuda else None,
            )
        return differentiable_value_and_log_det_at(self.branch, x, solution, rule, weighted_probe.probe, dtype, tensors)

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        w = self._centre(x, self.branch.effective_tensors())
        return (w - self.branch(w)) / SQRT2

    @not_compiled
    def _centre(self, x: Tensor, tensors: Tensors) -> Tensor:
        """Return w with w + g(w) = sqrt(2) x, with its gradient where anything has one."""
        self._start(x)
        w = self.centre(x, tensors).x
        if not self._has_derivatives(x):
            return w
        return differentiable_solution(
            self.branch, w, SQRT2 * x, self._rule(x.dtype), function=SolutionOfMonotoneBlock, tensors=tensors
        )

    def _start(self, x: Tensor) -> None:
        """Refuse transforms, and let the first batch of training start the branch."""
        refuse_transforms(MONOTONE_ONCE, x, *self.branch.parameters())
        if self.training:
            start(self.branch, SQRT2 * x)

    @contextmanager
    def _iterating(self, x: Tensor) -> Iterator[None]:
        """Evaluate the branch as a map alone: iterates start no layer and have the type of x."""
        with without_first_batch(self.branch), autocast_off(x.device.type):
            yield

    @torch.inference_mode(False)
    @torch.no_grad()
    def centre(self, x: Tensor, tensors: Tensors | None = None) -> Iterate:
        """Return w with w + g(w) = sqrt(2) x for x (B, C, H, W), with a bound of the residual.

        A sample of x that is not finite has no solution; its w is NaN.

        Args:
            x: input of the block.
            tensors: those of `branch.effective_tensors()`, where the caller has them.

        Raises:
            UnsolvedBlockError: the iteration did not converge.
        """
        effective = self.branch.effective_tensors() if tensors is None else tensors

        def branch(w: Tensor, _: Tensor) -> Tensor:
            parts = [
                self.branch.value_and_vjp(part(w, here), effective, w.dtype)[0]
                for here in samples_at_a_time(self.branch, w, w.dtype)
            ]
            return joined(parts)

        with self._iterating(x):
            try:
                return iterate_each(branch, SQRT2 * x, self._rule(x.dtype), SECANTS)
            except ConvergenceError as error:
                raise UnsolvedBlockError(f"its forward map has no solution: {error}", self) from None

    def _rule(self, dtype: torch.dtype) -> StoppingRule:
        return StoppingRule(self.training_log_det.solve_residual if self.training else EVALUATION_RESIDUAL[dtype])

    @override
    @torch.no_grad()
    def solve(self, y: Tensor, tolerance: float | None = None) -> Solution:
        with self._iterating(y):
            solution = invert(lambda w: -self.branch(w), SQRT2 * y, self.cached_lipschitz_bound(), tolerance)
        return Solution(SQRT2 * solution.x - y, SQRT2 * solution.bound, solution.evaluations)

    @override
    def _with_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        rule = StoppingRule.proven(self.cached_lipschitz_bound(), y.dtype)
        w = differentiable_solution(
            self.branch, ((x + y) / SQRT2).detach(), SQRT2 * y, rule, -1, SolutionOfMonotoneBlock
        )
        differentiable = SQRT2 * w - y
        return x + (differentiable - differentiable.detach())  # which adds zeros with a gradient
