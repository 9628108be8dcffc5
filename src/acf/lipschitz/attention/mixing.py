"""Y = P V with P a normalised exp(Q K^T): value, product with the transposed Jacobian, and tangent, in closed form.

All arguments are (..., N, d). P is a softmax along rows or doubly stochastic. Either way dP = P * (dS - a 1^T - 1 b^T),
where the potentials a, b (b = 0 for the softmax) make the sums of dP over rows (and columns) vanish, and
P * (. - a - b) is its own adjoint. So one description serves both: with cotangent G of P the cotangent of the logits is
P * (G - a - b), and for tangents dS' = dS - a - b, G' = G - a - b the second derivative is P * (G' * dS') less its own
potentials.
Sums of P * (X Y^T) over rows and columns are products with P itself: no N x N matrix is made for them.

Matrices N x N are made for a few heads at a time, so that they stay in the cache of a CPU, and in memory that is kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from acf.lipschitz.attention.balance import doubly_stochastic, potentials
from acf.lipschitz.chunks import parts
from acf.lipschitz.scratch import scratch

Potentials = tuple[Tensor, Tensor | None]


def mix(q: Tensor, k: Tensor, v: Tensor, balanced: bool) -> Tensor:
    """P V, differentiable any number of times by automatic differentiation."""
    return _weights(q @ k.mT, balanced) @ v


def linearise_mix(balanced: bool, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, "MixPull"]:
    """Return (P V, pull); pull(g) gives the cotangents of q, k and v for a cotangent g of the first len(g) samples."""
    heads = q.shape[:-2]
    q, k, v = (x.flatten(0, -3) for x in (q, k, v))
    weights, y = [], torch.empty_like(v)
    for part in _parts(q):
        weights.append(_weights(_product("logits", q[part], k[part]), balanced))
        torch.bmm(weights[-1], v[part], out=y[part])
    return y.unflatten(0, heads), MixPull(q, k, v, y, weights, balanced)


class MixPull:
    """Cotangents of Q, K and V from one of Y, with the P of each part kept."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, y: Tensor, weights: list[Tensor], balanced: bool) -> None:
        self.q, self.k, self.v, self.y, self.weights, self.balanced = q, k, v, y, weights, balanced

    def __call__(self, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, heads, N, d) -> cotangents of q, k, v, each (B, heads, N, d)."""
        heads, g = g.shape[:-2], g.flatten(0, -3)
        count, start = len(g), 0
        pulled = [torch.empty_like(x[:count]) for x in (self.q, self.k, self.v)]
        for p in self.weights:
            p = p[: max(count - start, 0)]
            if not len(p):
                break
            here = slice(start, start + len(p))
            start += len(p)
            self._part(p, here, g[here], *(x[here] for x in pulled))
        return tuple(x.unflatten(0, heads) for x in pulled)

    def _part(self, p: Tensor, here: slice, g: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
        q, k, v, y = self.q[here], self.k[here], self.v[here], self.y[here]
        torch.bmm(p.mT, g, out=dv)
        left = _potentials(p, (g * y).sum(-1), (dv * v).sum(-1), self.balanced)
        logits = _low_rank("logits", g, v, left).mul_(p)
        torch.bmm(logits, k, out=dq)
        torch.bmm(logits.mT, q, out=dk)


def dual_mix(
    balanced: bool, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (P V, its derivative along dq, dk, dv), differentiable once."""
    heads = q.shape[:-2]
    y, dy = _DualMix.apply(balanced, *(x.flatten(0, -3) for x in (q, k, v, dq, dk, dv)))
    return y.unflatten(0, heads), dy.unflatten(0, heads)


class _DualMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, balanced: bool, *factors: Tensor) -> tuple[Tensor, Tensor]:
        ys, dys, kept = [], [], []
        for part in _parts(factors[0]):
            y, dy, more = _dual_part(balanced, *(x[part] for x in factors))
            ys.append(y)
            dys.append(dy)
            kept += more
        ctx.balanced, ctx.per_part = balanced, len(kept) // len(ys)
        ctx.save_for_backward(*factors, *kept)
        return torch.cat(ys), torch.cat(dys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_dy: Tensor) -> tuple[Tensor | None, ...]:
        factors, kept, n = ctx.saved_tensors[:6], ctx.saved_tensors[6:], ctx.per_part
        results: list[tuple[Tensor, ...]] = []
        start = 0
        for i in range(0, len(kept), n):
            here = slice(start, start + len(kept[i]))
            start = here.stop
            inputs = (x[here] for x in (*factors, grad_y, grad_dy))
            results.append(_adjoint_part(ctx.balanced, kept[i : i + n], *inputs))
        return None, *(torch.cat(parts) for parts in zip(*results, strict=True))


def _dual_part(
    balanced: bool, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Y and dY of one part, and what its adjoint needs: P, Y, P dV, the potentials of dS."""
    p = _weights(_product("logits", q, k), balanced)
    y, pk, moved, pdk = (p @ torch.cat([v, k, dv, dk], -1)).split([v.shape[-1], k.shape[-1]] * 2, -1)
    rows = (dq * pk).sum(-1) + (q * pdk).sum(-1)
    columns = _column_sums(p, (dq, k), (q, dk)) if balanced else rows
    left = _potentials(p, rows, columns, balanced)
    change = _low_rank("change", torch.cat([dq, q], -1), torch.cat([k, dk], -1), left).mul_(p)
    y, moved = y.contiguous(), moved.contiguous()
    kept = [p, y, moved, *(x for x in left if x is not None)]
    return y, torch.baddbmm(moved, change, v), kept


def _adjoint_part(
    balanced: bool,
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
    """Cotangents of q, k, v, dq, dk, dv of one part."""
    p, y, moved, *left = kept
    tangent: Potentials = (left[0], left[1] if balanced else None)
    pulled = p.mT @ torch.cat([grad_y, grad_dy], -1)
    pulled_y, pulled_dy = pulled.split(v.shape[-1], -1)
    right = _potentials(p, (grad_dy * y).sum(-1), (pulled_dy * v).sum(-1), balanced)
    outer = _low_rank("outer", grad_dy, v, right)  # G'
    change = _low_rank("change", torch.cat([dq, q], -1), torch.cat([k, dk], -1), tangent).mul_(p)  # dP = P * dS'
    grad_v = torch.baddbmm(pulled_y, change.mT, grad_dy)
    change.mul_(outer)  # P * G' * dS'
    outer.mul_(p)  # cotangent of dS
    rows = change.sum(-1) + (grad_y * y).sum(-1) + (grad_dy * moved).sum(-1)
    columns = change.sum(-2) + (pulled_y * v).sum(-1) + (pulled_dy * dv).sum(-1) if balanced else rows
    both = _potentials(p, rows, columns, balanced)
    first = _low_rank("logits", torch.cat([grad_y, grad_dy], -1), torch.cat([v, dv], -1), both)
    logits = change.addcmul_(p, first)
    grad_q, grad_dq = torch.baddbmm(logits @ k, outer, dk), outer @ k
    grad_k, grad_dk = torch.baddbmm(logits.mT @ q, outer.mT, dq), outer.mT @ q
    return grad_q, grad_k, grad_v, grad_dq, grad_dk, pulled_dy


def _parts(q: Tensor) -> Iterator[slice]:
    return parts(len(q), q.shape[-2] ** 2, q.device, q.dtype)


def _weights(logits: Tensor, balanced: bool) -> Tensor:
    return doubly_stochastic(logits) if balanced else torch.softmax(logits, -1)


def _potentials(p: Tensor, rows: Tensor, columns: Tensor, balanced: bool) -> Potentials:
    return potentials(p, rows, columns) if balanced else (rows, None)


def _product(name: str, x: Tensor, y: Tensor) -> Tensor:
    """X Y^T (heads, N, N), in scratch memory of this name."""
    return torch.bmm(x, y.mT, out=scratch(name, (*x.shape[:2], y.shape[1]), x))


def _low_rank(name: str, x: Tensor, y: Tensor, less: Potentials) -> Tensor:
    """X Y^T - a 1^T - 1 b^T by one product, in scratch memory of this name."""
    a, b = less
    one = torch.ones_like(a).unsqueeze(-1)
    left, right = [x, -a.unsqueeze(-1)], [y, one]
    if b is not None:
        left, right = [*left, -one], [*right, b.unsqueeze(-1)]
    return _product(name, torch.cat(left, -1), torch.cat(right, -1))


def _column_sums(p: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Sums over rows of P * (sum of X Y^T)."""
    pulled = (p.mT @ torch.cat([x for x, _ in pairs], -1)).split([x.shape[-1] for x, _ in pairs], -1)
    return sum((z * y).sum(-1) for z, (_, y) in zip(pulled, pairs, strict=True))
