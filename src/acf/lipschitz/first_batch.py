"""Statistics of the first batch of training, from which ActNorm and attention take their starting values.

Where torch.distributed runs with several processes they are those of all ranks' batches together, the same bits on
every rank: ranks that started from their own batches would stay different for ever, as gradients alone are averaged. So
all ranks must make the first call in training mode together, as they do under DistributedDataParallel; a rank's batch
may be empty.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import InputError
from acf.runs.ranks import several_ranks


class StartedByFirstBatch(nn.Module):
    """A module that takes starting values from the first batch of training.

    The buffer `initialised` says whether it has, and is stored with the weights. What it says is kept on the host as
    well, as asking a tensor of a GPU makes the host wait: the buffer is read until it is True for the first time, and
    again after a state dict was loaded.

    Attributes:
        initialised: bool scalar; changed by `set_started` and `load_state_dict` alone.
    """

    initialised: Tensor
    _is_started = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.tensor(False))

    def is_started(self) -> bool:
        """Return whether the starting values have been set."""
        if not self._is_started:
            self._is_started = bool(self.initialised)
        return self._is_started

    def set_started(self) -> None:
        """Note that the starting values have been set."""
        self.initialised.fill_(True)
        self._is_started = True

    @override
    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_started = False


@contextmanager
def without_first_batch(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode for a while: the points of an iteration are no batch that sets values."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def start(module: nn.Module, x: Tensor) -> None:
    """Let a batch set the starting values of all modules within that have none, by one call with it."""
    if not all(m.is_started() for m in module.modules() if isinstance(m, StartedByFirstBatch)):
        module(x)


def samples_of_all_ranks(x: Tensor) -> int:
    """Return the number of samples of the batch x (B, ...), and of those of all other ranks."""
    if not several_ranks():
        return len(x)
    return int(_by_rank(torch.tensor([float(len(x))], dtype=torch.float64, device=x.device)).sum())


def mean_of_all_ranks(mean: Tensor, samples: int) -> Tensor:
    """Return the mean over all ranks' samples, of which `mean` is that of the `samples` of this rank.

    Raises:
        InputError: it is not finite, on every rank.
    """
    if several_ranks():
        counts, means = _by_rank_with_count(samples, mean)
        mean = ((counts * means).sum(0) / counts.sum()).to(mean.dtype)
    _require_finite(mean)
    return mean


def std_mean_of_all_ranks(std: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return standard deviation and mean of all ranks' values, from those of the `count` values of this rank.

    Raises:
        InputError: one of them is not finite, on every rank.
    """
    if several_ranks():
        counts, rows = _by_rank_with_count(count, torch.stack([std, mean]))
        stds, means = rows.unbind(1)
        counts, total = counts[..., 0], counts.sum()
        overall = (counts * means).sum(0) / total
        spread = (counts * (stds.square() + (means - overall).square())).sum(0) / total
        std, mean = spread.sqrt().to(std.dtype), overall.to(mean.dtype)
    _require_finite(std, mean)
    return std, mean


def _by_rank_with_count(count: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """The counts (ranks, 1, ...) and the values (ranks, ...) of all ranks, zeros where the count is zero."""
    flat = values.detach().double().flatten()
    row = torch.cat([flat.new_tensor([count]), flat if count else torch.zeros_like(flat)])
    table = _by_rank(row)
    return table[:, 0].view(-1, *[1] * values.dim()), table[:, 1:].view(-1, *values.shape)


def _by_rank(row: Tensor) -> Tensor:
    """The rows (ranks, n) of all ranks; a sum with zeros is exact, whatever the order of additions."""
    table = row.new_zeros(dist.get_world_size(), len(row))
    table[dist.get_rank()] = row
    dist.all_reduce(table)
    return table


def _require_finite(*statistics: Tensor) -> None:
    if not all(bool(values.isfinite().all()) for values in statistics):
        raise InputError(
            "the first batch of training cannot set starting values: it, or what earlier layers made of it, has values "
            "that are NaN, infinite or too large; this layer has stored nothing, so go on with another batch"
        )
