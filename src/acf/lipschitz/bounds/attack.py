"""Search for the largest local gain of a map: gradient ascent over inputs, and weights if wished, on |J(x)|.

What it finds is a lower bound of the map's Lipschitz constant: it can refute a certificate, never confirm one. It
knows nothing of how a bound was derived. It needs autograd backward, twice at most, as training does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from acf.lipschitz.bounds.starts import disturbed, starts
from acf.lipschitz.normalised import Normalised

Map = Callable[[Tensor], Tensor]

# Up to this many inputs the Jacobian is formed and decomposed, which takes seconds.
EXACT_INPUTS = 1500
# Of the inputs with the largest estimated gains, as many are measured exactly.
FINALISTS = 6
# Power iterations that tell promising inputs from others.
SCREENING = 4


@dataclass(frozen=True)
class Found:
    """The largest gain that an attack found.

    Attributes:
        gain: spectral norm of the Jacobian at `x`, exact for small maps, by power iteration (from below) for larger.
        x: the input, of the shape attacked.
        bound: what the module claims, `lipschitz_bound(number of positions)`; None where it claims nothing.
        module: the copy that was attacked, with the weights at which the gain was found.
    """

    gain: float
    x: Tensor = field(repr=False)
    bound: float | None
    module: nn.Module = field(repr=False)

    @property
    def ratio(self) -> float | None:
        """gain / bound: above 1 the bound is refuted."""
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
    climbers: int = 24,
    exact_inputs: int = EXACT_INPUTS,
) -> Found:
    """Attack `module`, a map (B, *shape) -> (B, ...) whose samples do not see each other; it is left as it is.

    Inputs of many kinds and scales are screened, the best of them climb, the best found is disturbed and climbs again.

    Args:
        module: the map, on any device; a copy of it is attacked in `dtype` and in the mode it is in.
        shape: of one input, channels first; positions along the other dimensions are taken for tokens.
        inputs: (B, *shape), further inputs to start from, such as images.
        steps: of gradient ascent, in each climb.
        rounds: how often the best input is disturbed and climbs again.
        over_weights: whether to climb once more over inputs and parameters together, through the module's own norms.
        seed: of all random draws.
        dtype: in which to compute; float64 tells a refutation from rounding.
        climbers: how many inputs climb at a time; memory grows with it.
        exact_inputs: number of inputs up to which the Jacobian norm is exact.

    Raises:
        ValueError: `inputs` are not of `shape`, or the module has no finite derivative at any input tried.
    """
    made = copy.deepcopy(module).to(dtype).requires_grad_(False)
    like = next(made.parameters(), torch.empty(0) if inputs is None else inputs)
    x = _pool(shape, inputs, seed, dtype).to(like.device)
    x = _best(made, x, climbers, climbers, SCREENING, seed)
    x = torch.cat([x, climb(made, x, steps, 0.1, seed)])
    for turn in range(rounds):
        best = _best(made, x, climbers, 1)
        x = torch.cat([x, climb(made, disturbed(best, climbers, seed + turn), steps, seed=seed)])
    found = _measured(made, x, climbers, exact_inputs)
    if over_weights and any(True for _ in made.parameters()):
        other = copy.deepcopy(made)
        x = climb(other, _best(made, x, climbers, climbers), steps, seed=seed, weights=other)
        converge(other.requires_grad_(False), 1e-6, 2000)
        found = max(found, _measured(other, x, climbers, exact_inputs), key=_merit)
    return found


def climb(
    f: Map, x: Tensor, steps: int = 100, rate: float = 0.05, seed: int = 0, weights: nn.Module | None = None
) -> Tensor:
    """Raise the gain of each sample of x; with `weights` also over that module's parameters, through its own norms.

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
            converge(weights, 1e-4, 50)
        now = z * _column(log_scale.exp(), x)
        gain, v = _gain(f, now, v)
        found, record = gain.detach().nan_to_num(0, 0, 0), float(best.max())
        better = found > best
        best[better], best_x[better] = found[better], now.detach()[better]
        if weights is not None and float(found.max()) > record:
            best_state = copy.deepcopy(weights.state_dict())
        if not gain.requires_grad:  # the map is linear
            break
        # Adam does not mind the size of a sample's share, while the weights, which all samples have, follow the best.
        share = (found / found.max()).nan_to_num(0).clamp_min(0.05) ** 4
        optimiser.zero_grad()
        (-gain.clamp_min(torch.finfo(x.dtype).tiny).log() * share).sum().backward()
        for leaf in (z, log_scale, *parameters):
            if leaf.grad is not None:
                leaf.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    if weights is not None and best_state is not None:
        weights.load_state_dict(best_state)
    return best_x


def jacobian_norm(f: Map, x: Tensor, rows: int = 256) -> Tensor:
    """Exact spectral norm of the Jacobian of each sample, (B,); `rows` of it are computed at a time."""
    norms = []
    for sample in x.detach():
        with torch.no_grad():
            outputs = f(sample.unsqueeze(0))[0]
        pulled = []
        # A row is the gradient of one output; one copy of the sample for each row needs no vmap of any layer.
        for basis in torch.eye(outputs.numel(), dtype=x.dtype, device=x.device).split(rows):
            copies = sample.expand(len(basis), *sample.shape).clone().requires_grad_(True)
            pulled.append(torch.autograd.grad(f(copies), copies, basis.view(-1, *outputs.shape))[0].flatten(1))
        matrix = torch.cat(pulled)
        finite = bool(matrix.isfinite().all())
        norms.append(torch.linalg.matrix_norm(matrix, 2) if finite else matrix.new_tensor(math.nan))
    return torch.stack(norms)


def power_norm(f: Map, x: Tensor, iterations: int = 1000, tolerance: float = 1e-5, seed: int = 0) -> Tensor:
    """Lower estimate of the spectral norm of each sample's Jacobian, (B,), by power iteration.

    Stops when ten iterations raise no estimate by more than `tolerance` of it, or after `iterations`.
    """
    push, pull = _linearised(f, x.detach())
    v, before = _directions(x, seed), x.new_zeros(len(x))
    for iteration in range(1, iterations + 1):
        pulled = pull(_unit(push(v)))
        now, v = _length(pulled), _turned(v, pulled)
        if iteration % 10 == 0:
            if not bool((now > (1 + tolerance) * before).any()):
                break
            before = now
    return now


def converge(module: nn.Module, tolerance: float = 1e-5, max_iterations: int = 200) -> None:
    """Bring all spectral norms within `module` up to date."""
    for part in module.modules():
        if isinstance(part, Normalised):
            part.converge_norm(tolerance, max_iterations)


def _gain(f: Map, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """|J^T u| (B,) for u = J v / |J v|, with gradient, and the direction J^T u: a step of power iteration."""
    push, pull = _linearised(f, x)
    pulled = pull(_unit(push(v)).detach(), True)
    return _length(pulled), _turned(v, pulled.detach())


def _linearised(f: Map, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]]:
    """v -> J v and u -> J^T u at x; the latter, on demand, with a graph.

    u -> J^T u is linear, so J is the derivative of that map's own adjoint: no forward mode is needed.
    """
    x = x if x.requires_grad else x.requires_grad_(True)
    y = f(x)
    u = torch.zeros_like(y, requires_grad=True)

    def pull(u: Tensor, graph: bool = False) -> Tensor:
        return torch.autograd.grad(y, x, u, retain_graph=True, create_graph=graph, materialize_grads=True)[0]

    pulled = pull(u, True)

    def push(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, u, v, retain_graph=True, materialize_grads=True)[0]

    return push, pull


def _pool(shape: tuple[int, ...], inputs: Tensor | None, seed: int, dtype: torch.dtype) -> Tensor:
    """All inputs to start from, on the CPU."""
    if inputs is None:
        return starts(shape, seed, dtype=dtype)
    if inputs.shape[1:] != torch.Size(shape):
        raise ValueError(f"inputs must have the shape (B, {', '.join(map(str, shape))}), got {tuple(inputs.shape)}")
    return torch.cat([inputs.detach().to("cpu", dtype), starts(shape, seed, dtype=dtype)])


def _best(f: Map, x: Tensor, batch: int, keep: int, iterations: int = 20, seed: int = 0) -> Tensor:
    gains = torch.cat([power_norm(f, part, iterations, seed=seed) for part in x.split(batch)])
    return x[gains.nan_to_num(0, 0, 0).argsort(descending=True)[:keep]]


def _measured(module: nn.Module, x: Tensor, batch: int, exact_inputs: int) -> Found:
    x = _best(module, x, batch, FINALISTS)
    norms = jacobian_norm(module, x) if x[0].numel() <= exact_inputs else power_norm(module, x)
    if not bool(norms.isfinite().any()):
        raise ValueError(f"{type(module).__name__} has no finite derivative at any input tried")
    best = int(norms.nan_to_num(0, 0, 0).argmax())
    bound = getattr(module, "lipschitz_bound", None)
    claimed = None if bound is None else float(bound(x[0, 0].numel()))
    return Found(float(norms[best]), x[best].detach(), claimed, module)


def _merit(found: Found) -> float:
    return found.gain if found.ratio is None else found.ratio


def _directions(x: Tensor, seed: int) -> Tensor:
    return _unit(torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(x))


def _turned(v: Tensor, pulled: Tensor) -> Tensor:
    """The direction of `pulled`, or v where that is zero or not finite."""
    length = _column(_length(pulled), pulled)
    return torch.where((length > 0) & length.isfinite(), _unit(pulled), v)


def _length(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1)


def _unit(v: Tensor) -> Tensor:
    return v / _column(_length(v).clamp_min(torch.finfo(v.dtype).tiny), v)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))
