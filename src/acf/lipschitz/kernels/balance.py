"""Doubly stochastic scaling of a positive matrix (Sinkhorn), with the derivatives of its limit.

The scaling is computed by alternation, which Newton's method ends (Proposition 4b of docs/mathematics.md), and is not
differentiated: derivatives are those of the limit, the map of Theorem 4. Each derivative is the solution of one
symmetric linear system (`System`), which can itself be differentiated any number of times, backward and forward.

The number of steps is fixed, so that no value of the device is read on the host. On a CPU, where reading does not wait,
steps that would change nothing are left out.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

ALTERNATIONS = 8
NEWTON_STEPS = {torch.float32: 4, torch.float64: 5}
"""Steps after the alternations; for logits in [-2, 2] one less was enough in all that was tried (test_balance.py)."""
CHECK = 2
"""Iterations between two tests of convergence; on small matrices such a test costs more than an iteration."""
# Conjugate gradients reduce the error by (cosh t - 1) / (cosh t + 1) per step (Proposition 4b), here for t = 2.
RATE = math.tanh(1.0) ** 2


def doubly_stochastic(logits: Tensor) -> Tensor:
    """Return P = diag(e^a) exp(logits) diag(e^b) (..., N, N) with row and column sums 1; logits within about [-2, 2].

    The scalings exist and P is unique (Sinkhorn 1967). Rows sum to 1 up to rounding, columns up to 32 machine epsilons.
    """
    if torch.compiler.is_exporting():  # which cannot record the derivatives of a function of one's own
        return balance(logits.clone(memory_format=torch.contiguous_format))
    return _Balanced.apply(logits)


def balance(logits: Tensor) -> Tensor:
    """Return `doubly_stochastic(logits)` without graph; overwrites the logits."""
    n = logits.shape[-1]
    kernel = logits.exp_().view(-1, n, n)
    left, right = _scalings(kernel)
    return kernel.mul_(left.mT).mul_(right).view(logits.shape)


def potentials(p: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return u, v (..., N) such that P * (u 1^T + 1 v^T) has these sums of rows and columns; P doubly stochastic."""
    return _Potentials.apply(p, rows, columns)


class System:
    """The equations u + P v = rows, P^T u + v = columns for given doubly stochastic P (heads, N, N), without graph.

    Eliminating u leaves (I - P^T P) v = columns - P^T rows. Its matrix is positive definite but for the constants, with
    eigenvalues of at least 1 / cosh(t)^2 for logits in [-t, t]. Small matrices are inverted, once for any number of
    right-hand sides; large ones take conjugate gradients.
    """

    def __init__(self, p: Tensor, column_sums: Tensor | None = None, inverse: Tensor | None = None) -> None:
        """Set up diag(column_sums) - P^T P, the identity by default; an inverse that is known is taken over."""
        self.p, self.column_sums, self.inverse = p, column_sums, inverse
        if inverse is None and p.shape[-1] <= _largest_inverted(p.device):
            self.inverse = _inverse(p, column_sums)

    def first(self, count: int) -> "System":
        """Return the system of the first `count` matrices."""
        if count >= len(self.p):
            return self
        sums = None if self.column_sums is None else self.column_sums[:count]
        return System(self.p[:count], sums, None if self.inverse is None else self.inverse[:count])

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
        for step in range(math.ceil(math.log(tolerance / 8) / math.log(RATE))):
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
    def forward(logits: Tensor) -> Tensor:
        return balance(logits.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _centred(ctx.saved_tensors[0], grads[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _centred(ctx.saved_tensors[0], tangents[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], logits: Tensor) -> tuple[Tensor, int]:
        return _Balanced.apply(logits.movedim(in_dims[0], 0)), 0


def _scalings(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the left and right scalings (heads, 1, N) of positive matrices (heads, N, N).

    The logarithms of the column sums after a step that makes row sums 1 are zero at the solution. An alternation
    subtracts them from the logarithms of the right scaling; a step of Newton's method first multiplies them by the
    inverse of their derivative, I - diag(column sums)^-1 P^T P.
    """
    right = torch.ones_like(kernel[..., :1, :])
    left, columns = _row_step(kernel, right)
    for iteration in range(ALTERNATIONS):
        if iteration % CHECK == 0 and _is_balanced(columns):
            return left, right
        right = right / columns
        left, columns = _row_step(kernel, right)
    for _ in range(NEWTON_STEPS[kernel.dtype]):
        if _is_balanced(columns):
            break
        change = columns * columns.log()
        change = columns * change.mean(-1, keepdim=True) - change
        right = right * System(kernel * left.mT * right, columns).solve(change).exp_()
        left, columns = _row_step(kernel, right)
    return left, right


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


def _largest_inverted(device: torch.device) -> int:
    """Return the size of the largest matrices that are inverted, which costs N^3; a GPU prefers few operations."""
    return 32 if device.type == "cpu" else 256


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


def _centred(p: Tensor, x: Tensor) -> Tensor:
    """P * (X - u 1^T - 1 v^T) with u, v such that all row and column sums vanish."""
    mass = p * x
    u, v = _Potentials.apply(p, mass.sum(-1), mass.sum(-2))
    return mass - p * (u.unsqueeze(-1) + v.unsqueeze(-2))


class _Potentials(Function):
    """Solve u + P v = rows, P^T u + v = columns for doubly stochastic P; u + c, v - c solve it as well.

    Arguments and results (..., N); the sums of rows and columns agree. Only u_i + v_j is determined, and a caller must
    not depend on anything else.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(p: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        shape, n = rows.shape, p.shape[-1]
        u, v = System(p.reshape(-1, n, n)).potentials(rows.reshape(-1, n), columns.reshape(-1, n))
        return u.view(shape), v.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p, u, v = ctx.saved_tensors
        rows, columns = _Potentials.apply(p, *grads)
        # The terms with u_i and v_j alone come from the row and column sums that stand for the identity in the system;
        # they vanish for every change of P that keeps these sums.
        return -_outer_sum(rows, columns) * _outer_sum(u, v), rows, columns

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        p, u, v = ctx.saved_tensors
        dp, rows, columns = tangents
        rows = torch.zeros_like(u) if rows is None else rows
        columns = torch.zeros_like(v) if columns is None else columns
        if dp is not None:
            moved = dp * _outer_sum(u, v)
            rows, columns = rows - moved.sum(-1), columns - moved.sum(-2)
        return _Potentials.apply(p, rows, columns)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        pairs = zip(args, in_dims, strict=True)
        moved = [x.movedim(d, 0) if d is not None else x.expand(info.batch_size, *x.shape) for x, d in pairs]
        return _Potentials.apply(*moved), (0, 0)


def _outer_sum(u: Tensor, v: Tensor) -> Tensor:
    return u.unsqueeze(-1) + v.unsqueeze(-2)
