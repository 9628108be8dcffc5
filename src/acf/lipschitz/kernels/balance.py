"""Doubly stochastic scaling of a positive matrix (Sinkhorn), with the derivatives of its limit.

The scaling is computed by alternation, which Newton's method ends (Proposition 4b of docs/mathematics.md), and is not
differentiated: derivatives are those of the limit, the map of Theorem 4. Each derivative is the solution of one
symmetric linear system (`System`), which can itself be differentiated any number of times, backward and forward.

The number of steps is fixed by a bound of the logits that the caller knows, so that no value of the device is read on
the host. On a CPU, where reading does not wait, steps that would change nothing are left out.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

SMALL_LOGIT, LARGEST_LOGIT = 2.0, 6.0
"""Bounds of logits: the first needs the fewest steps; beyond the second, `System` is singular to float32."""
ALTERNATIONS = 8
NEWTON_STEPS = {torch.float32: 4, torch.float64: 5}
"""Steps after the alternations; for logits in [-2, 2] one less was enough in all that was tried (test_balance.py)."""
CHECK = 2
"""Iterations between two tests of convergence; on small matrices such a test costs more than an iteration."""


def doubly_stochastic(logits: Tensor, limit: float = SMALL_LOGIT) -> Tensor:
    """Return P = diag(e^a) exp(logits) diag(e^b) (..., N, N) with row and column sums 1.

    The scalings exist and P is unique (Sinkhorn 1967). Rows sum to 1 up to rounding, columns up to 32 machine epsilons.

    Args:
        logits: (..., N, N), at most about `limit` in size.
        limit: at most `LARGEST_LOGIT`.
    """
    if torch.compiler.is_exporting():  # which cannot record the derivatives of a function of one's own
        return balance(logits.clone(memory_format=torch.contiguous_format), limit)
    return _Balanced.apply(logits, limit)


def balance(logits: Tensor, limit: float = SMALL_LOGIT) -> Tensor:
    """Return `doubly_stochastic(logits, limit)` without graph; overwrites the logits."""
    n = logits.shape[-1]
    kernel = logits.exp_().view(-1, n, n)
    left, right = _scalings(kernel, limit)
    return kernel.mul_(left.mT).mul_(right).view(logits.shape)


def rate(limit: float) -> float:
    """Return (cosh t - 1) / (cosh t + 1), by which conjugate gradients shrink the error per step (Proposition 4b)."""
    return math.tanh(max(limit, SMALL_LOGIT) / 2) ** 2


class System:
    """The equations u + P v = rows, P^T u + v = columns for given doubly stochastic P (heads, N, N), without graph.

    Eliminating u leaves (I - P^T P) v = columns - P^T rows. Its matrix is positive definite but for the constants, with
    eigenvalues of at least 1 / cosh(t)^2 for logits in [-t, t]. Small matrices are inverted, once for any number of
    right-hand sides; large ones take conjugate gradients.
    """

    def __init__(
        self,
        p: Tensor,
        limit: float = SMALL_LOGIT,
        column_sums: Tensor | None = None,
        inverse: Tensor | None = None,
    ) -> None:
        """Set up diag(column_sums) - P^T P, the identity by default; an inverse that is known is taken over."""
        self.p, self.limit, self.column_sums, self.inverse = p, limit, column_sums, inverse
        if inverse is None and p.shape[-1] <= _largest_inverted(p.device, limit):
            self.inverse = _inverse(p, column_sums)

    def first(self, count: int) -> "System":
        """Return the system of the first `count` matrices."""
        if count >= len(self.p):
            return self
        sums = None if self.column_sums is None else self.column_sums[:count]
        return System(self.p[:count], self.limit, sums, None if self.inverse is None else self.inverse[:count])

    def potentials(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(heads, N), (heads, N) -> u, v (heads, N); u + c, v - c solve the system as well."""
        rows, columns = rows.unsqueeze(-2), columns.unsqueeze(-2)
        v = self.solve(torch.baddbmm(columns, rows, self.p, alpha=-1))
        return torch.baddbmm(rows, v, self.p.mT, alpha=-1).squeeze(-2), v.squeeze(-2)

    def solve(self, right_side: Tensor) -> Tensor:
        """Return v (heads, 1, N) with (diag(column_sums) - P^T P) v = right side (heads, 1, N), up to a constant."""
        # The equations have a solution only if the sum is zero, which rounding may spoil.
        right_side = right_side - right_side.mean(-1, keepdim=True)
        if self.inverse is not None:
            return torch.bmm(right_side, self.inverse)
        return self._conjugate_gradients(right_side)

    def _conjugate_gradients(self, right_side: Tensor) -> Tensor:
        limits = torch.finfo(right_side.dtype)
        tolerance = 32 * limits.eps
        scale = right_side.abs().amax(-1, keepdim=True).clamp_min(limits.tiny)  # squares must not underflow
        residual = right_side / scale
        solution, direction = torch.zeros_like(residual), residual
        square = residual.square().sum(-1, keepdim=True)
        goal = tolerance**2 * square
        for step in range(math.ceil(math.log(tolerance / 8) / math.log(rate(self.limit)))):
            own = direction if self.column_sums is None else direction * self.column_sums
            own = own + direction.mean(-1, keepdim=True)  # as in `_inverse`
            image = torch.baddbmm(own, torch.bmm(direction, self.p.mT), self.p, alpha=-1)
            length = square / (direction * image).sum(-1, keepdim=True).clamp_min(limits.tiny)
            solution = torch.addcmul(solution, length, direction)
            residual = torch.addcmul(residual, length, image, value=-1)
            before, square = square, residual.square().sum(-1, keepdim=True)
            if step % CHECK == CHECK - 1 and _known_without_waiting(square) and bool((square <= goal).all()):
                break
            direction = torch.addcmul(residual, square / before.clamp_min(limits.tiny), direction)
        return solution * scale


class _Balanced(Function):
    """With dP = P * (dS + da + db) and sums of dP zero, dP/dS = P * projection: the derivative is its own adjoint."""

    generate_vmap_rule = False

    @staticmethod
    def forward(logits: Tensor, limit: float) -> Tensor:
        return balance(logits.clone(memory_format=torch.contiguous_format), limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.limit = inputs[1]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _centred(ctx.saved_tensors[0], grads[0], ctx.limit), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _centred(ctx.saved_tensors[0], tangents[0], ctx.limit)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], logits: Tensor, limit: float) -> tuple[Tensor, int]:
        return _Balanced.apply(logits.movedim(in_dims[0], 0), limit), 0


def _scalings(kernel: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return the left and right scalings (heads, 1, N) of positive matrices (heads, N, N).

    The logarithms of the column sums after a step that makes row sums 1 are zero at the solution. An alternation
    subtracts them from the logarithms of the right scaling; a step of Newton's method first multiplies them by the
    inverse of their derivative, I - diag(column sums)^-1 P^T P. For large logits that alone may diverge; an alternation
    after each step takes away the errors that the step has made large.
    """
    right = torch.ones_like(kernel[..., :1, :])
    left, columns = _row_step(kernel, right)
    for iteration in range(ALTERNATIONS):
        if iteration % CHECK == 0 and _is_balanced(columns):
            return left, right
        right = right / columns
        left, columns = _row_step(kernel, right)
    for _ in range(newton_steps(limit, kernel.dtype)):
        if _is_balanced(columns):
            break
        change = columns * columns.log()
        change = columns * change.mean(-1, keepdim=True) - change
        right = right * System(kernel * left.mT * right, limit, columns).solve(change).exp_()
        left, columns = _row_step(kernel, right)
        if limit > SMALL_LOGIT:
            right = right / columns
            left, columns = _row_step(kernel, right)
    return left, right


def newton_steps(limit: float, dtype: torch.dtype) -> int:
    """Return how many steps of Newton's method follow the alternations, for logits of at most `limit` in size."""
    return NEWTON_STEPS[dtype] + math.ceil(1.5 * max(0.0, limit - SMALL_LOGIT))


def _row_step(kernel: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the left scaling that makes row sums 1, and the column sums that then hold."""
    left = torch.bmm(right, kernel.mT).reciprocal_()
    return left, torch.bmm(left, kernel).mul_(right)


def _is_balanced(columns: Tensor) -> bool:
    """Whether column sums agree to 32 machine epsilons in all matrices, where that is known without waiting."""
    if not _known_without_waiting(columns):
        return False
    tolerance = 32 * torch.finfo(columns.dtype).eps
    return bool((columns.amax(-1) <= (1 + tolerance) * columns.amin(-1)).all())


def _known_without_waiting(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _largest_inverted(device: torch.device, limit: float) -> int:
    """Return the size of the largest matrices that are inverted, which costs N^3; a GPU prefers few operations.

    For large logits conjugate gradients take up to 20 times the steps, all of them where none can be left out.
    """
    if device.type == "cpu":
        return 32
    return 256 if limit <= SMALL_LOGIT else 1024


def _inverse(p: Tensor, column_sums: Tensor | None) -> Tensor:
    """Return the inverse of diag(column_sums) - P^T P + 1 1^T / N, in which the constants are no null space.

    By way of the Cholesky factor, in operations that a CUDA graph can record.
    """
    n = p.shape[-1]
    identity = torch.eye(n, dtype=p.dtype, device=p.device)
    diagonal = identity if column_sums is None else identity * column_sums
    factor = torch.linalg.cholesky_ex(torch.baddbmm(diagonal + 1 / n, p.mT, p, alpha=-1)).L
    inverse_factor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return torch.bmm(inverse_factor.mT, inverse_factor)


def _centred(p: Tensor, x: Tensor, limit: float) -> Tensor:
    """P * (X - u 1^T - 1 v^T) with u, v such that all row and column sums vanish."""
    mass = p * x
    u, v = _Potentials.apply(p, mass.sum(-1), mass.sum(-2), limit)
    return mass - p * (u.unsqueeze(-1) + v.unsqueeze(-2))


class _Potentials(Function):
    """Solve u + P v = rows, P^T u + v = columns for doubly stochastic P; u + c, v - c solve it as well.

    Arguments and results (..., N); the sums of rows and columns agree. Only u_i + v_j is determined, and a caller must
    not depend on anything else.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(p: Tensor, rows: Tensor, columns: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        shape, n = rows.shape, p.shape[-1]
        u, v = System(p.reshape(-1, n, n), limit).potentials(rows.reshape(-1, n), columns.reshape(-1, n))
        return u.view(shape), v.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.limit = inputs[3]
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        p, u, v = ctx.saved_tensors
        rows, columns = _Potentials.apply(p, *grads, ctx.limit)
        # The terms with u_i and v_j alone come from the row and column sums that stand for the identity in the system;
        # they vanish for every change of P that keeps these sums.
        return -_outer_sum(rows, columns) * _outer_sum(u, v), rows, columns, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        p, u, v = ctx.saved_tensors
        dp, rows, columns, _ = tangents
        rows = torch.zeros_like(u) if rows is None else rows
        columns = torch.zeros_like(v) if columns is None else columns
        if dp is not None:
            moved = dp * _outer_sum(u, v)
            rows, columns = rows - moved.sum(-1), columns - moved.sum(-2)
        return _Potentials.apply(p, rows, columns, ctx.limit)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        *tensors, limit = args
        pairs = zip(tensors, in_dims[:-1], strict=True)
        moved = [x.movedim(d, 0) if d is not None else x.expand(info.batch_size, *x.shape) for x, d in pairs]
        return _Potentials.apply(*moved, limit), (0, 0)


def _outer_sum(u: Tensor, v: Tensor) -> Tensor:
    return u.unsqueeze(-1) + v.unsqueeze(-2)
