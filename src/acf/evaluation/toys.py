"""What is measured of a flow that was trained on one of the toy densities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acf.data.toy_density import HALF_WIDTH, ToyDensity, square
from acf.flows.flow import Flow

HELD_OUT = 5000
"""Number of new points whose likelihood is measured."""
SHOWN = 4000
"""Number of points of a panel of data, and of one of samples."""
STEP = 0.06
"""Of the grid on which the model's density is shown and integrated."""
AT_ONCE = 2000


@dataclass(frozen=True)
class Panels:
    """What the picture shows of a density, or of that of one label.

    Attributes:
        label: c of p(x | c); None where there is no condition.
        data: points (n, 2) of the data.
        density: the model's (side, side) on the square, first coordinate first.
        samples: points (n, 2) of the model.
    """

    label: int | None
    data: Tensor
    density: Tensor
    samples: Tensor


@dataclass(frozen=True)
class MeasuredToy:
    """Numbers for metrics.json, and panels: one, or one per label."""

    content: dict[str, Any]
    panels: list[Panels]


@torch.no_grad()
def measure_toy(flow: Flow, toy: ToyDensity, conditional: bool, generator: torch.Generator) -> MeasuredToy:
    """Measure the likelihood of new points, and show the density on a square of side 12.

    Args:
        flow: proven contractive, in evaluation mode, with exact log-determinants.
        toy: what it was trained on.
        conditional: whether it is a flow of p(x | c), c the part.
        generator: on the CPU, of new points and of the noise that samples start from.

    Returns:
        In nats: `log_likelihood`, the `mean` of log q(x) over new points x of the density p, its standard error `se`
        and their number `points`; `entropy` of p, minus which is the highest mean possible; `divergence`: mean of
        log p(x) - log q(x) with its standard error, an estimate of the Kullback-Leibler divergence. `integral`: of q
        over the square; the mean over labels of a conditional one. All given c where the flow is conditional.
    """
    x, labels = toy.sample(HELD_OUT, generator)
    given = labels if conditional else None
    model, data = _log_prob(flow, x, given), toy.log_prob(x, given)
    panels = [_panels(flow, toy, label, generator) for label in (range(toy.parts) if conditional else [None])]
    content = {
        "log_likelihood": {**_mean(model), "points": HELD_OUT},
        "entropy": toy.entropy(of_parts=conditional),
        "divergence": _mean(data - model),
        "integral": sum(float(one.density.sum()) for one in panels) / len(panels) * STEP**2,
        "integral_half_width": HALF_WIDTH,
    }
    return MeasuredToy(content, panels)


def _panels(flow: Flow, toy: ToyDensity, label: int | None, generator: torch.Generator) -> Panels:
    grid = square(STEP)
    condition = None if label is None else torch.full((1,), label)
    density = _log_prob(flow, grid, condition).exp()
    side = math.isqrt(len(grid))
    first = next(flow.parameters())
    z = torch.randn(SHOWN, 2, generator=generator).to(first)
    there = None if condition is None else condition.to(first.device)
    samples = torch.cat([flow.inverse(batch, condition=there) for batch in z.split(AT_ONCE)])
    points, labels = toy.sample(SHOWN if label is None else SHOWN * toy.parts, generator)
    shown = points if label is None else points[labels == label]
    return Panels(label, shown, density.view(side, side), samples.cpu().double())


def _log_prob(flow: Flow, x: Tensor, condition: Tensor | None) -> Tensor:
    """Return log q (B,), in float64 on the CPU."""
    first = next(flow.parameters())
    found, start = [], 0
    for batch in x.split(AT_ONCE):
        own = condition if condition is None or len(condition) == 1 else condition[start : start + len(batch)]
        start += len(batch)
        there = None if own is None else own.to(first.device)
        found.append(flow.log_prob(batch.to(first.dtype).to(first.device), there).cpu().double())
    return torch.cat(found)


def _mean(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std()) / math.sqrt(len(values))}
