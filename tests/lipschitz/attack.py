"""Search for the largest local gain of a map: gradient ascent over inputs and weights on |J v| / |v|.

What it finds is a lower bound of the map's Lipschitz constant, so it can refute a certificate, never confirm one.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from acf.lipschitz.normalised import Normalised

Map = Callable[[Tensor], Tensor]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jacobian_norm(f: Map, x: Tensor) -> Tensor:
    """Exact spectral norm of the Jacobian of each sample, (B,); for small maps."""
    jacobians = torch.func.vmap(torch.func.jacrev(lambda z: f(z.unsqueeze(0)).flatten()))(x.detach())
    return torch.linalg.matrix_norm(jacobians.detach().flatten(2), 2)


def power_norm(f: Map, x: Tensor, iterations: int = 30, seed: int = 0) -> Tensor:
    """Lower estimate of the spectral norm of each sample's Jacobian, (B,), by power iteration; for larger maps."""
    v = _unit(torch.randn(x.shape, dtype=x.dtype, generator=generator(seed)))
    for _ in range(iterations):
        v = _power_step(f, x.detach(), v)
    return _gain(f, x.detach(), v).detach()


def starts(shape: tuple[int, ...], seed: int = 0, each: int = 4) -> Tensor:
    """Inputs (B, C, H, W) in float64: noise, two clusters, an outlier, coincident and orthogonal tokens, all sizes."""
    draw = generator(seed)
    channels, *size = shape
    count = size[0] * size[1]

    def noise(*dims: int) -> Tensor:
        return torch.randn(*dims, dtype=torch.float64, generator=draw)

    kinds = []
    for _ in range(each):
        two = noise(2, channels)[torch.randint(2, (count,), generator=draw)]
        outlier = torch.cat([30 * noise(1, channels), 0.1 * noise(count - 1, channels)])
        coincident = noise(1, channels).expand(count, -1) + 1e-4 * noise(count, channels)
        axes = torch.eye(channels, dtype=torch.float64)[torch.arange(count) % channels] + 0.1 * noise(count, channels)
        kinds += [noise(count, channels), two + 0.1 * noise(count, channels), outlier, coincident, axes]
    scales = 10.0 ** (4 * torch.rand(len(kinds), 1, 1, dtype=torch.float64, generator=draw) - 2)
    tokens = torch.stack(kinds) * scales
    return tokens.transpose(1, 2).reshape(-1, *shape)


def climb(f: Map, x: Tensor, steps: int = 120, rate: float = 0.05, weights: nn.Module | None = None) -> Tensor:
    """Raise the gain of each sample of x; with `weights` also over that module's parameters, through its own norms.

    Every sample moves in direction and, by a separate logarithm, in scale. Returns the best inputs met; `weights` ends
    with the parameters and buffers of the step with the largest gain.
    """
    size = x.flatten(1).abs().amax(1).view(-1, *[1] * (x.dim() - 1))
    z, log_scale = (x / size).requires_grad_(True), size.log().requires_grad_(True)
    v = _unit(torch.randn(x.shape, dtype=x.dtype, generator=generator(1)))
    parameters = list(weights.parameters()) if weights is not None else []
    optimiser = torch.optim.Adam([z, log_scale, *parameters], lr=rate, betas=(0.9, 0.98))
    best, best_x, best_state = torch.zeros(len(x), dtype=x.dtype), x.clone(), None
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1.02 - step / steps)
        if weights is not None:
            converge(weights)
        now = z * log_scale.exp()
        v = _power_step(f, now.detach(), v)
        gain = _gain(f, now, v)
        found, record = gain.detach(), float(best.max())
        better = found > best
        best[better], best_x[better] = found[better], now.detach()[better]
        if weights is not None and float(found.max()) > record:
            best_state = copy.deepcopy(weights.state_dict())
        optimiser.zero_grad()
        (-gain.clamp_min(1e-30).log().sum()).backward()
        for leaf in (z, log_scale, *parameters):
            if leaf.grad is not None:
                leaf.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    if best_state is not None:
        weights.load_state_dict(best_state)
    return best_x


def attack(
    layer: nn.Module, shape: tuple[int, ...], steps: int = 120, over_weights: bool = True, seed: int = 0, each: int = 4
) -> float:
    """Largest exact Jacobian norm found on inputs of `shape`, at the weights that `layer` ends with.

    First over inputs with the weights given, then (`over_weights`) over both.
    """
    layer.double().train()
    x = climb(layer, starts(shape, seed, each), steps)
    if over_weights:
        x = torch.cat([x, climb(layer, x, steps, weights=layer)])
    return float(jacobian_norm(layer, x).max())


def converge(module: nn.Module) -> None:
    """Bring all spectral norms within `module` up to date."""
    for part in module.modules():
        if isinstance(part, Normalised):
            part.converge_norm(1e-5, 200)


def _power_step(f: Map, x: Tensor, v: Tensor) -> Tensor:
    with torch.no_grad():
        pushed = torch.func.jvp(f, (x,), (v,))[1]
        pulled = torch.func.vjp(f, x)[1](pushed)[0]
    return torch.where(_length(pulled) > 0, _unit(pulled), v)


def _gain(f: Map, x: Tensor, v: Tensor) -> Tensor:
    return torch.func.jvp(f, (x,), (v,))[1].flatten(1).norm(dim=1)


def _length(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))


def _unit(v: Tensor) -> Tensor:
    return v / _length(v).clamp_min(1e-300)
