"""Search for the largest gain of an attention's core in queries, keys and values together, or in some of them."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Core = Callable[..., Tensor]
ALL = (0, 1, 2)


def joint_norm(core: Core, qkv: Tensor, parts: Sequence[int] = ALL) -> Tensor:
    """Spectral norm of the Jacobian of core(Q, K, V) in the `parts` of (Q, K, V); differentiable.

    Args:
        core: maps three times (B, heads, N, d) to (B, heads, N, d).
        qkv: (B, 3, N, d); the result is (B,).
        parts: 0 for Q, 1 for K, 2 for V.
    """

    def one(z: Tensor) -> Tensor:
        return core(*z[:, None, None]).flatten()

    jacobians = torch.func.vmap(torch.func.jacrev(one))(qkv)
    return torch.linalg.svdvals(jacobians[:, :, list(parts)].flatten(2))[..., 0]


def largest_norm(
    core: Core,
    start: Tensor,
    parts: Sequence[int] = ALL,
    steps: int = 120,
    rate: float = 0.05,
    parameters: Iterable[Tensor] = (),
) -> float:
    """Largest `joint_norm` met while gradient ascent moves the inputs (B, 3, N, d), and `parameters` with them."""
    qkv, best = start.clone().requires_grad_(True), 0.0
    optimiser = torch.optim.Adam([qkv, *parameters], lr=rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1.02 - step / steps)
        norms = joint_norm(core, qkv, parts)
        best = max(best, norms.max().item())
        optimiser.zero_grad()
        (-norms.sum()).backward()
        optimiser.step()
    return best
