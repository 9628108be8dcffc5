"""Gradients of a branch g(x; theta) and of products w^T J v with its Jacobian, in memory that one slice needs."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from acf.lipschitz.kernels.chunks import batch_slices
from acf.lipschitz.layer import LipschitzLayer, Tensors, unflatten

Pair = tuple[Tensor, Tensor]


@torch.no_grad()
def branch_gradient(
    branch: LipschitzLayer,
    form: Tensors,
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
        form: a nested tuple of the form of `branch.effective_tensors()`.
        theta: its tensors in the order of `flatten`.
        needed: whether the gradient is needed, for x and each tensor of theta; where it is not, None is returned.
        x: (B, ...).
        cotangent: c, of x's shape.
        pairs: at least one (v_j, w_j), each of x's shape.
        dtype: type of the computation, which `value_and_jvp` must support; x's by default.
    """
    if not any(needed):
        return (None,) * len(needed)
    dtype = dtype or x.dtype
    needs_x, *needs = needed
    leaves = [t.detach().to(dtype).requires_grad_(need) for t, need in zip(theta, needs, strict=True)]
    wanted = [t for t in leaves if t.requires_grad]
    tensors = unflatten(form, iter(leaves))
    grad_x = torch.zeros_like(x) if needs_x else None
    sums = [torch.zeros_like(t, dtype=x.dtype) for t in wanted]
    for here in samples_at_a_time(branch, x, dtype):
        c = cotangent[here]
        for v, w in pairs:
            z = torch.cat([x[here], v[here]]).to(dtype).requires_grad_(needs_x)
            with torch.enable_grad():
                output = branch.value_and_jvp(z, tensors)
            inputs = [*wanted, z] if needs_x else wanted
            grads = list(torch.autograd.grad(output, inputs, torch.cat([c, w[here]]).to(dtype), materialize_grads=True))
            c = torch.zeros_like(c)  # g(x) is differentiated once.
            if grad_x is not None:
                grad_x[here] += grads.pop().chunk(2)[0]
            if grads:
                torch._foreach_add_(sums, grads)
    gradients = iter(sums)
    return grad_x, *(next(gradients) if need else None for need in needs)


def samples_at_a_time(branch: LipschitzLayer, x: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Yield slices of the samples x (B, ...) whose intermediate results in the branch fit in the cache."""
    values = max(x[0].numel(), branch.intermediate_values(x[0, 0].numel())) if len(x) else 1
    return batch_slices(len(x), values, x.device, dtype)
