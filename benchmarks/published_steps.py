"""Training steps of this package, of its plain reference and of the published code, in parts that can be timed.

A step is a generator: the parts of `PARTS` lie between its yields. `seconds_of` times them.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import published_code
import torch
from torch import Tensor

import acf
from acf.flows import reference
from acf.settings.config import TrainingConfig

try:
    from acf.training.average import MovingAverage
except ImportError:  # a package of before
    from acf.training.average import build_average as MovingAverage
from acf.training.optimiser import build_optimiser

PARTS = ("forward", "backward", "clipping and optimiser", "norms", "average")
Step = Callable[[Tensor], Iterator[Tensor]]


def our_step(flow: acf.Flow, renormalise: Callable[[], None] | None = None, settings: Any = None) -> Step:
    """Return a training step of a flow, with the optimiser and the average that the package's trainer gives it.

    Args:
        flow: the flow, in training mode.
        renormalise: another update of the norms than the flow's.
        settings: settings of the training (`acf.settings.config.TrainingConfig`), by default the paper's.
    """
    settings = settings or TrainingConfig()
    optimiser, average = build_optimiser(flow, settings), MovingAverage(flow, settings.ema_decay)
    values, renormalise = math.prod(flow.shape), renormalise or flow.renormalise
    log_prob = getattr(flow, "log_prob_unchecked", flow.log_prob)  # as the trainer; packages of before have no such

    def step(x: Tensor) -> Iterator[Tensor]:
        optimiser.zero_grad(set_to_none=True)
        loss = -log_prob(x).mean() / values
        yield loss.detach()
        loss.backward()
        yield loss
        torch.nn.utils.clip_grad_norm_(flow.parameters(), settings.clip_norm)
        optimiser.step()
        yield loss
        renormalise()
        yield loss
        average.update_parameters(flow)
        yield loss

    return step


def reference_step(flow: acf.Flow) -> Step:
    """Return a step of the published algorithm as `acf.flows.reference` writes it, on a copy of the flow."""
    plain = reference.as_reference(flow)
    return our_step(plain, lambda: reference.renormalise(plain))


def their_step(published: published_code.Published) -> Step:
    """Return a step of the published code."""
    values = math.prod(published.shape)

    def step(x: Tensor) -> Iterator[Tensor]:
        loss = -published.log_prob(x).mean() / values
        yield loss.detach()
        loss.backward()
        yield loss
        torch.nn.utils.clip_grad_norm_(published.net.parameters(), published_code.CLIP_NORM)
        published.optimiser.step()
        published.optimiser.zero_grad()
        yield loss
        published.renormalise()
        yield loss
        published.average.apply()
        yield loss

    return step


def synchronise(x: Tensor) -> None:
    """Wait for the device that holds `x`."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def seconds_of(step: Step, x: Tensor) -> tuple[list[float], list[float]]:
    """Take a step; return (seconds of CPU, seconds of wall), each of the parts in order and then of the whole step.

    Clocks are read when the calls of a part have returned: on CUDA the parts' seconds are the host's, and the device is
    waited for at the end of the step only. Threads of the process count in full as seconds of CPU.
    """
    synchronise(x)
    clocks = [(time.process_time(), time.perf_counter())]
    for _ in step(x):
        clocks.append((time.process_time(), time.perf_counter()))
    synchronise(x)
    end = time.process_time(), time.perf_counter()
    cpu, wall = ([*(b[i] - a[i] for a, b in itertools.pairwise(clocks)), end[i] - clocks[0][i]] for i in range(2))
    return cpu, wall


def take(step: Step, x: Tensor) -> Tensor:
    """Take a step without timing it; return its loss in nats per dimension."""
    loss, *_ = step(x)
    return loss
