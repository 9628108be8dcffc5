"""Y = P V with P a normalised exp(Q K^T + B): value, vector-Jacobian and Jacobian-vector product in closed form.

Q, K, V are (..., heads, N, d); B (heads, N, N), one for all samples, may be left out. P is a softmax along rows where
`limit` is None, and otherwise doubly stochastic, for logits of at most `limit` in size. Either way
dP = P * (dS - a 1^T - 1 b^T), where the potentials a, b (b = 0 for the softmax) make the sums of dP over rows (and
columns) vanish, and P * (. - a - b) is its own adjoint. So one description serves both: with cotangent G of P the
cotangent of the logits is P * (G - a - b), and for tangents dS' = dS - a - b, G' = G - a - b the second derivative is
P * (G' * dS') less its own potentials. B has no tangent; its cotangent is that of the logits, summed over samples.
Sums of P * (X Y^T) over rows and columns are products with P itself: no N x N matrix is made for them.

Matrices N x N are computed for a few heads at a time, so that they stay in the cache of a CPU.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.kernels.balance import System, balance, doubly_stochastic
from acf.lipschitz.kernels.chunks import batch_slices
from acf.lipschitz.kernels.scratch import empty
from acf.lipschitz.once_differentiable import OnceDifferentiable

Potentials = tuple[Tensor, Tensor | None]


def mixing_weights(q: Tensor, k: Tensor, limit: float | None, bias: Tensor | None = None) -> Tensor:
    """Return P (..., N, N), differentiable any number of times by automatic differentiation."""
    logits = q @ k.mT if bias is None else q @ k.mT + bias
    return torch.softmax(logits, -1) if limit is None else doubly_stochastic(logits, limit)


def mix_value_and_vjp(
    limit: float | None, bias: Tensor | None, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, "MixVJP"]:
    """Return P V and the function g -> cotangents of q, k and v, for a cotangent g of the first len(g) samples."""
    heads = q.shape[:-2]
    q, k, v = (x.flatten(0, -3) for x in (q, k, v))
    weights, y = [], torch.empty_like(v)
    for here in _head_slices(q):
        weights.append(Weights(q[here], k[here], limit, bias, here))
        y[here] = _times(weights[-1].p, v[here])
    return y.unflatten(0, heads), MixVJP(q, k, v, y, weights)


class Weights:
    """P (n, N, N) of the n heads `here` of all samples' heads, and the potentials for it."""

    def __init__(self, q: Tensor, k: Tensor, limit: float | None, bias: Tensor | None, here: slice) -> None:
        shape = (*q.shape[:2], k.shape[1])
        logits = torch.bmm(q, k.mT, out=empty(shape, q))
        if bias is not None:
            for of_samples, of_head in _by_head(logits, bias, here):
                of_samples.add_(of_head)
        self.p = torch.softmax(logits, -1, out=empty(shape, q)) if limit is None else balance(logits, limit)
        self.system = None if limit is None else System(self.p, limit)

    def potentials(self, rows: Tensor, columns: Tensor) -> Potentials:
        """Return a, b (heads, N) such that P * (a 1^T + 1 b^T) has these sums of rows (and columns)."""
        return (rows, None) if self.system is None else self.system.potentials(rows, columns)

    def first(self, count: int) -> "Weights":
        """Return the weights of the first `count` heads."""
        if count >= len(self.p):
            return self
        some = object.__new__(Weights)
        some.p, some.system = self.p[:count], None if self.system is None else self.system.first(count)
        return some


class MixVJP:
    """The map from a cotangent of Y to those of Q, K and V; it keeps the P of all heads."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, y: Tensor, weights: list[Weights]) -> None:
        self.q, self.k, self.v, self.y, self.weights = q, k, v, y, weights

    def __call__(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, heads, N, d) -> cotangents of q, k, v, each (B, heads, N, d)."""
        heads, g = g.shape[:-2], g.flatten(0, -3)
        cotangents = [torch.empty_like(x[: len(g)]) for x in (self.q, self.k, self.v)]
        start = 0
        for weights in self.weights:
            if start and start >= len(g):
                break
            weights = weights.first(len(g) - start)
            here = slice(start, start + len(weights.p))
            start = here.stop
            self._fill(weights, here, g[here], *(x[here] for x in cotangents))
        return tuple(x.unflatten(0, heads) for x in cotangents)

    def _fill(self, weights: Weights, here: slice, g: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
        """Write the cotangents of the heads `here` into dq, dk and dv."""
        p, q, k, v, y = weights.p, self.q[here], self.k[here], self.v[here], self.y[here]
        dv.copy_(_times(p.mT, g))
        left = weights.potentials((g * y).sum(-1), (dv * v).sum(-1))
        logits = _low_rank(g, v, left).mul_(p)
        dq.copy_(_times(logits, k))
        dk.copy_(_times(logits.mT, q))


def mix_value_and_jvp(
    limit: float | None, bias: Tensor | None, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return P V and its derivative along dq, dk, dv, both differentiable once, in the bias as well."""
    heads = q.shape[:-2]
    y, dy = _MixValueAndJVP.apply(limit, bias, *(x.flatten(0, -3) for x in (q, k, v, dq, dk, dv)))
    return y.unflatten(0, heads), dy.unflatten(0, heads)


class _MixValueAndJVP(OnceDifferentiable):
    advice = (
        "the values and tangents of attention can be differentiated once, backward, only; for higher derivatives, "
        "forward mode and torch.func differentiate the layer's forward method"
    )

    @staticmethod
    @override
    def forward(ctx: Any, limit: float | None, bias: Tensor | None, *factors: Tensor) -> tuple[Tensor, Tensor]:
        ys, dys, weights, kept = [], [], [], []
        for here in _head_slices(factors[0]):
            weights.append(Weights(factors[0][here], factors[1][here], limit, bias, here))
            y, dy, more = _value_and_jvp_of_slice(weights[-1], *(x[here] for x in factors))
            ys.append(y)
            dys.append(dy)
            kept += more
        ctx.weights, ctx.kept_per_slice = weights, len(kept) // len(ys)
        ctx.save_for_backward(*factors, *kept, *(() if bias is None else (bias,)))
        return torch.cat(ys), torch.cat(dys)

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_dy: Tensor) -> tuple[Tensor | None, ...]:
        factors, kept, n = saved[:6], saved[6:], ctx.kept_per_slice
        of_bias = torch.zeros_like(saved[-1]) if ctx.needs_input_grad[1] else None
        results: list[tuple[Tensor, ...]] = []
        for i, here in enumerate(_head_slices(factors[0])):
            inputs = (x[here] for x in (*factors, grad_y, grad_dy))
            logits, *of_factors = _adjoint_of_slice(ctx.weights[i], kept[n * i : n * (i + 1)], *inputs)
            results.append(tuple(of_factors))
            if of_bias is not None:
                for of_samples, of_head in _by_head(logits, of_bias, here):
                    of_head.add_(of_samples.sum(0))
        return None, of_bias, *(torch.cat(slices) for slices in zip(*results, strict=True))


def _value_and_jvp_of_slice(
    weights: Weights, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return Y and dY of some heads, and what the adjoint needs: Y, P dV, the potentials of dS."""
    p = weights.p
    y, pk, moved, pdk = _times(p, torch.cat([v, k, dv, dk], -1)).split([v.shape[-1], k.shape[-1]] * 2, -1)
    rows = (dq * pk).sum(-1) + (q * pdk).sum(-1)
    columns = rows if weights.system is None else _column_sums(p, (dq, k), (q, dk))
    left = weights.potentials(rows, columns)
    change = _low_rank(torch.cat([dq, q], -1), torch.cat([k, dk], -1), left).mul_(p)
    kept = [y, moved, *(x for x in left if x is not None)]
    return y, moved + _times(change, v), kept


def _adjoint_of_slice(
    weights: Weights,
    kept: tuple[Tensor, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    grad_y: Tensor,
    grad_dy: Tensor,
) -> tuple[Tensor, ...]:
    """Return the cotangents of the logits and of q, k, v, dq, dk, dv of some heads."""
    p, balanced, (y, moved, *left) = weights.p, weights.system is not None, kept
    tangent: Potentials = (left[0], left[1] if balanced else None)
    vjp_y, vjp_dy = _times(p.mT, torch.cat([grad_y, grad_dy], -1)).split(v.shape[-1], -1)
    right = weights.potentials((grad_dy * y).sum(-1), (vjp_dy * v).sum(-1))
    outer = _low_rank(grad_dy, v, right)  # G'
    change = _low_rank(torch.cat([dq, q], -1), torch.cat([k, dk], -1), tangent).mul_(p)  # dP = P * dS'
    grad_v = vjp_y + _times(change.mT, grad_dy)
    change.mul_(outer)  # P * G' * dS'
    outer.mul_(p)  # cotangent of dS
    rows = change.sum(-1) + (grad_y * y).sum(-1) + (grad_dy * moved).sum(-1)
    columns = change.sum(-2) + (vjp_y * v).sum(-1) + (vjp_dy * dv).sum(-1) if balanced else rows
    both = weights.potentials(rows, columns)
    first = _low_rank(torch.cat([grad_y, grad_dy], -1), torch.cat([v, dv], -1), both)
    logits = change.addcmul_(p, first)
    more_q, grad_dq = _times(outer, torch.cat([dk, k], -1)).chunk(2, -1)
    more_k, grad_dk = _times(outer.mT, torch.cat([dq, q], -1)).chunk(2, -1)
    grad_q, grad_k = _times(logits, k) + more_q, _times(logits.mT, q) + more_k
    return logits, grad_q, grad_k, grad_v, grad_dq, grad_dk, vjp_dy


def _by_head(x: Tensor, of_heads: Tensor, here: slice) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each head its part of x, which lies at the places `here` of all samples' heads, and of `of_heads`."""
    heads = len(of_heads)
    for head, of_head in enumerate(of_heads):
        yield x[(head - here.start) % heads :: heads], of_head


def _head_slices(q: Tensor) -> Iterator[slice]:
    """Slices of the heads of all samples whose matrices N x N fit in the cache."""
    return batch_slices(len(q), q.shape[-2] ** 2, q.device, q.dtype)


def _times(p: Tensor, x: Tensor) -> Tensor:
    """P X (heads, N, d) as (X^T P^T)^T: matrix products want the long dimension last, and d is small."""
    return torch.bmm(x.mT.contiguous(), p.mT).mT


def _product(x: Tensor, y: Tensor) -> Tensor:
    """X Y^T (heads, N, N)."""
    heads, n, _ = x.shape
    # Rows that lie a multiple of a page apart share their places in the cache of a CPU.
    stride = n + 16 if n * x.itemsize % 4096 == 0 else n
    return torch.bmm(x, y.mT, out=empty((heads, n, stride), x)[..., :n])


def _low_rank(x: Tensor, y: Tensor, less: Potentials) -> Tensor:
    """X Y^T - a 1^T - 1 b^T by one product."""
    a, b = less
    one = torch.ones_like(a).unsqueeze(-1)
    left, right = [x, -a.unsqueeze(-1)], [y, one]
    if b is not None:
        left, right = [*left, -one], [*right, b.unsqueeze(-1)]
    return _product(torch.cat(left, -1), torch.cat(right, -1))


def _column_sums(p: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sums over rows of P * (sum of X Y^T over all pairs)."""
    products = _times(p.mT, torch.cat([x for x, _ in pairs], -1)).split([x.shape[-1] for x, _ in pairs], -1)
    return sum((z * y).sum(-1) for z, (_, y) in zip(products, pairs, strict=True))
