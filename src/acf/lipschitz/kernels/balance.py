"""Doubly stochastic scaling of a positive matrix (Sinkhorn), with the derivatives of its limit.

The iteration runs until it converges and is not differentiated: derivatives are those of the limit, the map of Theorem
4 of docs/mathematics.md. Each derivative is the solution of one symmetric linear system. That is found by the same
alternation, and can itself be differentiated any number of times, backward and forward.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# For logits in [-t, t] every iteration multiplies the distance of the scalings from their limit by tanh(t)^2 at most
# (Proposition 4b): for t <= 2, 475 iterations prove 32 machine epsilons in float64 and 190 in float32. Commonly 4 to 8
# suffice.
MAX_ITERATIONS = 500
CHECK = 2
"""Iterations between two tests of convergence; on small matrices such a test costs more than an iteration."""


def doubly_stochastic(logits: Tensor) -> Tensor:
    """Return P = diag(e^a) exp(logits) diag(e^b) (..., N, N) with row and column sums 1; logits within about [-2, 2].

    The scalings exist and P is unique (Sinkhorn 1967). Rows sum to 1 up to rounding, columns up to 32 machine epsilons.
    """
    return _Balanced.apply(logits)


def balance(logits: Tensor) -> Tensor:
    """Return `doubly_stochastic(logits)` without graph; overwrites the logits."""
    kernel = logits.exp_()
    left, right = _scalings(kernel)
    return kernel.mul_(left).mul_(right.mT)


def potentials(p: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return u, v (..., N) such that P * (u 1^T + 1 v^T) has these sums of rows and columns; P doubly stochastic."""
    return _Potentials.apply(p, rows, columns)


class _Balanced(Function):
    """With dP = P * (dS + da + db) and sums of dP zero, dP/dS = P * projection: the derivative is its own adjoint."""

    generate_vmap_rule = False

    @staticmethod
    def forward(logits: Tensor) -> Tensor:
        kernel = logits.exp()
        left, right = _scalings(kernel)
        return left * kernel * right.mT

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
    """Return the left and right scalings (..., N, 1) of a positive matrix (..., N, N)."""
    tolerance = 32 * torch.finfo(kernel.dtype).eps
    right = torch.ones_like(kernel[..., 0, :, None])
    for iteration in range(MAX_ITERATIONS):
        left = (kernel @ right).reciprocal_()
        sums = kernel.mT @ left
        if iteration % CHECK == CHECK - 1:
            # The logarithms of the column sums are what the next iteration would change.
            columns = right * sums
            if (columns.amax(-2) <= (1 + tolerance) * columns.amin(-2)).all():
                return left, right
        right = sums.reciprocal_()
    return (kernel @ right).reciprocal_(), right


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
        tolerance = 32 * torch.finfo(p.dtype).eps
        # Rounding must not leave sums that differ, which no u, v could have.
        columns = columns + (rows.mean(-1, keepdim=True) - columns.mean(-1, keepdim=True))
        goal = tolerance * torch.maximum(rows.abs().amax(-1), columns.abs().amax(-1))
        shape, (n, _) = rows.shape, p.shape[-2:]
        p, rows, columns = p.reshape(-1, n, n), rows.reshape(-1, n, 1), columns.reshape(-1, n, 1)
        v = torch.zeros_like(columns)
        for iteration in range(MAX_ITERATIONS):
            before = v
            u = torch.baddbmm(rows, p, v, alpha=-1)
            v = torch.baddbmm(columns, p.mT, u, alpha=-1)
            if iteration % CHECK == CHECK - 1 and ((v - before).abs_().amax((-2, -1)) <= goal.view(-1)).all():
                break
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
