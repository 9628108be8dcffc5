"""Work that a signal to stop may end at any moment, as if it had never begun."""

from collections.abc import Callable
from typing import TypeVar

import torch

from acf.runs.signals import StopSignals
from acf.training.average import MovingAverage
from acf.training.random_state import random_state, restore_random_state

T = TypeVar("T")


def unless_stopped(
    signals: StopSignals, average: MovingAverage, device: torch.device, compute: Callable[[], T]
) -> T | None:
    """Return what `compute` returns; None if a signal ended it, or came before, and then all is as before the call.

    Args:
        signals: entered; their first signal ends the computation.
        average: `compute` may change its buffers, as a certificate does. What it does to gradients does not matter.
        device: where `compute` may draw random numbers.
        compute: neither changes parameters nor writes files.
    """
    state = random_state(device)
    buffers = [buffer.clone() for buffer in average.buffers()]
    try:
        with signals.raising():
            return compute()
    except BaseException:  # libraries make other exceptions of an interruption
        if signals.received is None:
            raise
    restore_random_state(state, device)
    for buffer, before in zip(average.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return None
