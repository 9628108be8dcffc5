"""The random numbers that a flow draws in one pass in training: lengths of power series, and probes.

Where several processes share the work, all must draw the same lengths, because each would otherwise wait for the one
with the longest series, and different probes, because the mean over equal ones would be no better than one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from acf.errors import InputError
from acf.flows.logdet import RouletteEstimator
from acf.runs.ranks import BatchShare, several_ranks

BYPASSED = (
    "this flow is wrapped by DistributedDataParallel, which averages gradients over the processes in calls of the "
    "wrapped model only: call z, log_abs_det = model(x) and flow.base_log_prob(z) + log_abs_det, or wrap the flow as "
    "model = acf.DataParallelFlow(flow) and call model.log_prob(x)"
)


class Noise(Protocol):
    """A source of the random numbers of one pass."""

    def lengths(self, estimator: RouletteEstimator, count: int) -> list[int]:
        """Return the numbers of further terms of `count` series (`RouletteEstimator.systematic_lengths`)."""

    def probes(self, estimator: RouletteEstimator, shape: Sequence[int], x: Tensor) -> Tensor:
        """Return probes (blocks, B, C, H, W), given `shape` (blocks, C, H, W), for the batch x (B, ...)."""


@dataclass(frozen=True)
class SharedNoise:
    """Noise of a batch of which this process has a share: drawn for the whole batch from torch's global generators.

    All processes must have their generators in the same state. With the whole batch as the share it is the noise of a
    process that is alone.

    Attributes:
        share: the rows of this process.
    """

    share: BatchShare

    def lengths(self, estimator: RouletteEstimator, count: int) -> list[int]:
        """Return what all processes draw."""
        return estimator.systematic_lengths(count)

    def probes(self, estimator: RouletteEstimator, shape: Sequence[int], x: Tensor) -> Tensor:
        """Return this process's rows of the probes of the whole batch."""
        whole = x.new_empty(shape[0], self.share.total, *shape[1:])
        return self.share.rows(estimator.draw_probe(whole), dim=1)


@dataclass
class RankNoise:
    """Noise of a rank under DistributedDataParallel, whatever the seeds of the processes' global generators are.

    The lengths come from a generator that is the same on all ranks, the probes from one that is not.

    Attributes:
        seed: the same on all ranks.
        rank: number of this process.
    """

    seed: int
    rank: int
    _lengths: torch.Generator = field(init=False)
    _probes: dict[torch.device, torch.Generator] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._lengths = torch.Generator("cpu").manual_seed(self.seed)

    @classmethod
    def agreed(cls, device: torch.device) -> "RankNoise":
        """Return the noise of this rank; the seed is drawn from the first rank's global generator.

        To be called by all ranks together, with a device that the default process group can use.
        """
        seed = torch.randint(2**62, (1,), device="cpu").to(device)
        dist.broadcast(seed, src=0)
        return cls(int(seed), dist.get_rank())

    def lengths(self, estimator: RouletteEstimator, count: int) -> list[int]:
        """Return lengths that are the same on all ranks."""
        return estimator.systematic_lengths(count, self._lengths)

    def probes(self, estimator: RouletteEstimator, shape: Sequence[int], x: Tensor) -> Tensor:
        """Return probes that are this rank's own."""
        if x.device not in self._probes:
            digest = hashlib.sha256(f"{self.seed}/{self.rank}".encode()).digest()[:4]
            self._probes[x.device] = torch.Generator(x.device).manual_seed(int.from_bytes(digest))
        return estimator.draw_probe(x.new_empty(shape[0], len(x), *shape[1:]), self._probes[x.device])


def in_data_parallel_call() -> bool:
    """Return whether a wrapped model is being called on several ranks, as all of them do together."""
    return several_ranks() and DistributedDataParallel._active_ddp_module is not None


def require_no_bypass() -> None:
    """Check that a flow which is wrapped by DistributedDataParallel is called through it.

    Raises:
        InputError: it is called directly, where several ranks train it.
    """
    if several_ranks() and not in_data_parallel_call():
        raise InputError(BYPASSED)
