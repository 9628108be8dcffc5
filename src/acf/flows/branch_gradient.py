"""Gradients of a branch g(x; theta) and of products w^T J v with its Jacobian, in memory that one slice needs."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from acf.lipschitz.kernels.chunks import batch_slices
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten, unflatten

Pair = tuple[Tensor, Tensor]


@torch.no_grad()
def branch_gradient(
    branch: LipschitzLayer,
    structure: Tensors,
    theta: Sequence[Tensor],
    needed: Sequence[bool],
    x: Tensor,
    cotangent: Tensor,
    pairs: Sequence[Pair],
    dtype: torch.dtype | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients in x and each tensor of theta of c^T g(x) + sum_j w_j^T J(x) v_j, with c, v, w constant.

    Each pair is one pass of dual numbers x + v_j and one reverse pass through it, with the cotangents [c; w_j].

    Args:
        branch: g.
        structure: a nested tuple of the structure of `branch.effective_tensors()`.
        theta: its tensors in the order of `flatten`.
        needed: whether the gradient is needed, for x and each tensor of theta; where it is not, None is returned.
        x: (B, ...).
        cotangent: c, of x's shape.
        pairs: at least one (v_j, w_j), each of x's shape.
        dtype: type of the computation, which `jvp_and_pullback` must support; x's by default.
    """
    if not any(needed):
        return (None,) * len(needed)
    dtype = dtype or x.dtype
    needs_x, *needs = needed
    if dtype != x.dtype or any(t.requires_grad != need for t, need in zip(theta, needs, strict=True)):
        theta = [t.detach().to(dtype).requires_grad_(need) for t, need in zip(theta, needs, strict=True)]
    tensors = unflatten(structure, iter(theta))
    of_x: list[Tensor] = []
    sums: list[Tensor] = []
    for here in samples_at_a_time(branch, x, dtype):
        c, of_slice = part(cotangent, here), None
        for index, (v, w) in enumerate(pairs):
            if index:
                c = torch.zeros_like(c)  # g(x) is differentiated once.
            _, pullback = branch.jvp_and_pullback(torch.cat([part(x, here), part(v, here)]).to(dtype), tensors)
            of_z, of_tensors = pullback(torch.cat([c, part(w, here)]).to(dtype))
            if needs_x:
                of_pair = of_z.chunk(2)[0]
                of_slice = of_pair if of_slice is None else of_slice + of_pair
            sums = added(sums, [t for t in flatten(of_tensors) if t is not None], x.dtype)
            del pullback, of_z, of_tensors  # A pullback keeps its intermediate results.
        if of_slice is not None:
            of_x.append(of_slice)
    gradients = iter(sums)
    grad_x = joined(of_x).to(x.dtype) if needs_x else None
    return grad_x, *(next(gradients) if need else None for need in needs)


def added(sums: list[Tensor], more: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the sums with `more` added to them in place; no sums at all are zeros, which have this type."""
    if not sums:
        return [tensor.to(dtype) for tensor in more]
    if more:
        torch._foreach_add_(sums, more)
    return sums


def samples_at_a_time(branch: LipschitzLayer, x: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Yield slices of the samples x (B, ...) whose intermediate results in the branch fit in the cache."""
    samples, channels, *size = x.shape
    positions = math.prod(size)
    values = max(channels * positions, branch.intermediate_values(positions))
    return batch_slices(samples, values, x.device, dtype)


def part(x: Tensor, here: slice) -> Tensor:
    """Return the samples `here` of x, by no operation if these are all."""
    return x if here.start == 0 and here.stop == x.shape[0] else x[here]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return what parts of a batch make together, by no operation if there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
