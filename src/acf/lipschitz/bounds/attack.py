"""Search for the largest local gain of a map: gradient ascent over inputs, and weights if wished, on |J(x)|.

The gain it finds is a lower bound of the map's Lipschitz constant: it can refute a certificate, never confirm one. It
does not use how a bound was derived. The map must be differentiable twice by autograd, backward, as for training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from acf.lipschitz.bounds.starting_points import perturbed, starting_points
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised import Normalised

Map = Callable[[Tensor], Tensor]

# Up to this many inputs the Jacobian is computed as a matrix and decomposed, which takes seconds.
EXACT_INPUTS = 1500
# The gains of this many inputs, those with the largest estimates, are computed exactly.
FINALISTS = 6
# Number of power iterations by which the first candidates are chosen.
SCREENING = 4


@dataclass(frozen=True)
class AttackResult:
    """The largest gain that an attack found.

    Attributes:
        gain: spectral norm of the Jacobian at `x`, exact for small maps, by power iteration (from below) for larger.
        x: the input, of the shape attacked.
        bound: `lipschitz_bound(number of positions)` of the module; None if it is no `LipschitzLayer`.
        module: the copy that was attacked, with the weights at which the gain was found.
    """

    gain: float
    x: Tensor = field(repr=False)
    bound: float | None
    module: nn.Module = field(repr=False)

    @property
    def ratio(self) -> float | None:
        """Return gain / bound: above 1 the bound is refuted."""
        if self.bound is None:
            return None
        return self.gain / self.bound if self.bound > 0 else math.inf if self.gain > 0 else 0.0


def largest_gain(
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    inputs: Tensor | None = None,
    steps: int = 100,
    rounds: int = 2,
    over_weights: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    candidates: int = 24,
    batch: int | None = None,
    exact_inputs: int = EXACT_INPUTS,
) -> AttackResult:
    """Search for the largest gain of `module`, a map (B, *shape) -> (B, ...) that treats samples independently.

    Of inputs of many kinds and scales those with the largest gains are improved by gradient ascent. Then the best input
    found is perturbed in many ways, and the results are improved again.

    Args:
        module: the map, on any device and left as it is; a copy is attacked in `dtype` and in the module's mode.
        shape: of one input, channels first; positions along the other dimensions are taken for tokens.
        inputs: (B, *shape), further inputs to start from, such as images.
        steps: number of steps of each gradient ascent.
        rounds: how often the best input is perturbed and improved again.
        over_weights: whether a last ascent is over inputs and parameters together, through the module's own norms.
        seed: of all random draws.
        dtype: in which to compute; in float64 a refutation cannot be mistaken for rounding.
        candidates: number of inputs that one gradient ascent improves; memory grows with it.
        batch: number of inputs whose gains are measured at a time, `candidates` by default; large ones are faster on
            small maps.
        exact_inputs: number of inputs up to which the Jacobian norm is exact.

    Raises:
        ValueError: `inputs` are not of `shape`, or the module has no finite derivative at any input tried.
    """
    batch = candidates if batch is None else batch
    made = copy.deepcopy(module).to(dtype).requires_grad_(False)
    like = next(made.parameters(), torch.empty(0, device="cpu") if inputs is None else inputs)
    x = _pool(shape, inputs, seed, dtype).to(like.device)
    x = _best(made, x, batch, candidates, SCREENING, seed)
    x = torch.cat([x, gradient_ascent(made, x, steps, 0.1, seed)])
    for turn in range(rounds):
        best = _best(made, x, batch, 1)
        x = torch.cat([x, gradient_ascent(made, perturbed(best, candidates, seed + turn), steps, seed=seed)])
    found = _measured(made, x, batch, exact_inputs)
    if over_weights and any(True for _ in made.parameters()):
        other = copy.deepcopy(made)
        x = gradient_ascent(other, _best(made, x, batch, candidates), steps, seed=seed, weights=other)
        converge_norms(other.requires_grad_(False), 1e-6, 2000)
        found = max(found, _measured(other, x, batch, exact_inputs), key=_merit)
    return found


def gradient_ascent(
    f: Map, x: Tensor, steps: int = 100, rate: float = 0.05, seed: int = 0, weights: nn.Module | None = None
) -> Tensor:
    """Increase the gain of each sample of x by Adam; with `weights` also over the parameters of that module.

    Every sample moves in direction and, by a separate logarithm, in scale. Returns the best inputs met, x itself among
    them, by an estimate from below that one power iteration per step improves; `weights` ends with the parameters and
    buffers of the step with the largest gain.
    """
    size = x.flatten(1).abs().amax(1).clamp_min(torch.finfo(x.dtype).tiny)
    z, log_scale = (x / _column(size, x)).requires_grad_(True), size.log().requires_grad_(True)
    parameters = list(weights.requires_grad_(True).parameters()) if weights is not None else []
    optimiser = torch.optim.Adam([z, log_scale, *parameters], lr=rate, betas=(0.9, 0.98), eps=1e-16)
    v = _directions(x, seed)
    best, best_x, best_state = torch.zeros(len(x), dtype=x.dtype, device=x.device), x.clone(), None
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1.02 - step / steps)
        if weights is not None:
            converge_norms(weights, 1e-4, 50)
        now = z * _column(log_scale.exp(), x)
        gain, v = _gain(f, now, v)
        found, record = gain.detach().nan_to_num(0, 0, 0), float(best.max())
        better = found > best
        best[better], best_x[better] = found[better], now.detach()[better]
        if weights is not None and float(found.max()) > record:
            best_state = copy.deepcopy(weights.state_dict())
        if not gain.requires_grad:  # the map is linear
            break
        # Adam's steps of z do not depend on a sample's factor, while those of the weights follow the best samples.
        factor = (found / found.max()).nan_to_num(0).clamp_min(0.05) ** 4
        optimiser.zero_grad()
        (-gain.clamp_min(torch.finfo(x.dtype).tiny).log() * factor).sum().backward()
        for leaf in (z, log_scale, *parameters):
            if leaf.grad is not None:
                leaf.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    if weights is not None and best_state is not None:
        weights.load_state_dict(best_state)
    return best_x


def jacobian_norm(f: Map, x: Tensor, rows: int = 256) -> Tensor:
    """Return the exact spectral norm (B,) of each sample's Jacobian; `rows` of its rows are computed at a time."""
    norms = []
    for sample in x.detach():
        with torch.no_grad():
            outputs = f(sample.unsqueeze(0))[0]
        blocks = []
        # A row is the gradient of one output. A copy of the sample for each row also works for layers without vmap.
        for basis in torch.eye(outputs.numel(), dtype=x.dtype, device=x.device).split(rows):
            copies = sample.expand(len(basis), *sample.shape).clone().requires_grad_(True)
            blocks.append(torch.autograd.grad(f(copies), copies, basis.view(-1, *outputs.shape))[0].flatten(1))
        matrix = torch.cat(blocks)
        finite = bool(matrix.isfinite().all())
        norms.append(torch.linalg.matrix_norm(matrix, 2) if finite else matrix.new_tensor(math.nan))
    return torch.stack(norms)


def power_norm(f: Map, x: Tensor, iterations: int = 1000, tolerance: float = 1e-5, seed: int = 0) -> Tensor:
    """Return a lower estimate (B,) of the spectral norm of each sample's Jacobian, by power iteration.

    It stops when ten iterations raise no estimate by more than `tolerance` of it, or after `iterations`.
    """
    jvp, vjp = _jvp_and_vjp(f, x.detach())
    v, before = _directions(x, seed), x.new_zeros(len(x))
    for iteration in range(1, iterations + 1):
        product = vjp(_unit(jvp(v)))
        now, v = _length(product), _next_direction(v, product)
        if iteration % 10 == 0:
            if not bool((now > (1 + tolerance) * before).any()):
                break
            before = now
    return now


def converge_norms(module: nn.Module, tolerance: float = 1e-5, max_iterations: int = 200) -> None:
    """Iterate the estimated norms of all normalised layers of `module` to convergence.

    Args:
        module: changed in place (buffers only).
        tolerance: relative change of an estimate at which its iteration stops.
        max_iterations: largest number of iterations for each layer.
    """
    for layer in module.modules():
        if isinstance(layer, Normalised):
            layer.converge_norm(tolerance, max_iterations)


def _gain(f: Map, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """|J^T u| (B,) for u = J v / |J v|, with gradient, and the direction J^T u: a step of power iteration."""
    jvp, vjp = _jvp_and_vjp(f, x)
    product = vjp(_unit(jvp(v)).detach(), True)
    return _length(product), _next_direction(v, product.detach())


def _jvp_and_vjp(f: Map, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]]:
    """Return v -> J v and u -> J^T u at x; the latter with a graph if its second argument is true.

    u -> J^T u is linear, so J is the derivative of that map's own adjoint: no forward mode is needed.
    """
    x = x if x.requires_grad else x.requires_grad_(True)
    y = f(x)
    u = torch.zeros_like(y, requires_grad=True)

    def vjp(u: Tensor, graph: bool = False) -> Tensor:
        return torch.autograd.grad(y, x, u, retain_graph=True, create_graph=graph, materialize_grads=True)[0]

    jtu = vjp(u, True)

    def jvp(v: Tensor) -> Tensor:
        return torch.autograd.grad(jtu, u, v, retain_graph=True, materialize_grads=True)[0]

    return jvp, vjp


def _pool(shape: tuple[int, ...], inputs: Tensor | None, seed: int, dtype: torch.dtype) -> Tensor:
    """All inputs to start from, on the CPU."""
    if inputs is None:
        return starting_points(shape, seed, dtype=dtype)
    if inputs.shape[1:] != torch.Size(shape):
        raise ValueError(f"inputs must have the shape (B, {', '.join(map(str, shape))}), got {tuple(inputs.shape)}")
    return torch.cat([inputs.detach().to("cpu", dtype), starting_points(shape, seed, dtype=dtype)])


def _best(f: Map, x: Tensor, batch: int, keep: int, iterations: int = 20, seed: int = 0) -> Tensor:
    gains = torch.cat([power_norm(f, samples, iterations, seed=seed) for samples in x.split(batch)])
    return x[gains.nan_to_num(0, 0, 0).argsort(descending=True)[:keep]]


def _measured(module: nn.Module, x: Tensor, batch: int, exact_inputs: int) -> AttackResult:
    x = _best(module, x, batch, FINALISTS)
    norms = jacobian_norm(module, x) if x[0].numel() <= exact_inputs else power_norm(module, x)
    if not bool(norms.isfinite().any()):
        raise ValueError(f"{type(module).__name__} has no finite derivative at any input tried")
    best = int(norms.nan_to_num(0, 0, 0).argmax())
    claimed = float(module.lipschitz_bound(x[0, 0].numel())) if isinstance(module, LipschitzLayer) else None
    return AttackResult(float(norms[best]), x[best].detach(), claimed, module)


def _merit(found: AttackResult) -> float:
    return found.gain if found.ratio is None else found.ratio


def _directions(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return _unit(torch.randn(x.shape, dtype=torch.float64, generator=generator, device="cpu").to(x))


def _next_direction(v: Tensor, product: Tensor) -> Tensor:
    """The direction of `product`, or v where that is zero or not finite."""
    length = _column(_length(product), product)
    return torch.where((length > 0) & length.isfinite(), _unit(product), v)


def _length(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1)


def _unit(v: Tensor) -> Tensor:
    return v / _column(_length(v).clamp_min(torch.finfo(v.dtype).tiny), v)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))
