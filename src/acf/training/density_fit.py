"""Training of a flow on vectors to a density that can be sampled from without end."""

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from acf.errors import TrainingError
from acf.flows.certificate import Certificate
from acf.flows.flow import Flow
from acf.settings.config import TrainingConfig
from acf.training.average import MovingAverage, certified_average
from acf.training.optimiser import build_optimiser, learning_rate, set_learning_rate

Draw = Callable[[int], tuple[Tensor, Tensor | None]]
"""From a number to so many new points (n, D), where the flow is, and the condition of each or None."""


def fit_density(
    flow: Flow, draw: Draw, config: TrainingConfig, report: Callable[[int, float, float], None]
) -> tuple[Flow, Certificate]:
    """Train a flow by maximum likelihood, each batch of new points; return its moving average with the certificate.

    Every step lowers the mean of -log p(x) / (D log 2) over a batch. The average is in evaluation mode and proven
    contractive. There are no checkpoints, as this is for minutes.

    Args:
        flow: with fresh weights, on its device; it is changed.
        draw: the points.
        config: steps, batch size, optimiser and its rates, clipping, moving average; what concerns images has no
            effect.
        report: called about ten times with the number of steps done, the mean of -log p(x) in nats over the batches
            since the call before, and the seconds since the start.

    Raises:
        TrainingError: the loss is NaN or infinite.
        NotContractiveError: a block cannot be proven contractive; names the layer.
    """
    flow.train()
    optimiser, average = build_optimiser(flow, config), MovingAverage(flow, config.ema_decay)
    nats_per_unit = flow.shape[0] * torch.tensor(2.0).log().item()
    started, losses, every = perf_counter(), [], max(1, config.steps // 10)
    for step in range(config.steps):
        set_learning_rate(optimiser, learning_rate(step, config))
        x, condition = draw(config.batch_size)
        optimiser.zero_grad()
        loss = -flow.log_prob_unchecked(x, condition).mean() / nats_per_unit
        loss.backward()
        clip_grad_norm_(flow.parameters(), config.clip_norm, foreach=True)
        optimiser.step()
        flow.renormalise()
        average.update_parameters(flow)
        losses.append(loss.detach())
        if (step + 1) % every == 0:
            mean = float(torch.stack(losses).mean()) * nats_per_unit
            if not mean < torch.inf:
                raise TrainingError(f"the loss is {mean} by step {step + 1}; lower the learning rates")
            report(step + 1, mean, perf_counter() - started)
            losses = []
    return certified_average(average)
