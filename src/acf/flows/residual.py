"""The residual block x + g(x) with a contraction g."""

from torch import Tensor
from typing_extensions import override

from acf.flows.contractive import ContractiveBlock
from acf.flows.fixed_point import Solution, StoppingRule, invert
from acf.flows.implicit import differentiable_solution
from acf.flows.log_det_form import RESIDUAL
from acf.flows.prepared import Prepared
from acf.lipschitz.first_batch import without_first_batch
from acf.lipschitz.precision import autocast_off


class ResidualBlock(ContractiveBlock):
    """f(x) = x + g(x), Lip(g) < 1 (arXiv 1811.00995), with the roulette estimate of log|det(I + J_g)|, or exact."""

    log_det_form = RESIDUAL

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        """Return (f(x), log_abs_det); the latter is an unbiased estimate in nats, and so is its gradient."""
        y, log_abs_det = self.branch_and_log_det(x, prepared)
        return x + y, log_abs_det

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x + self.branch(x)

    @override
    def solve(self, y: Tensor, tolerance: float | None = None) -> Solution:
        with without_first_batch(self.branch), autocast_off(y.device.type):
            return invert(self.branch, y, self.cached_lipschitz_bound(), tolerance)

    @override
    def _with_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        rule = StoppingRule.proven(self.cached_lipschitz_bound(), y.dtype)
        return differentiable_solution(self.branch, x, y, rule)
