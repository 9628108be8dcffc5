"""The processes that compute one training together: who they are, and what they tell each other."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from acf.errors import ConfigError, LostRankError
from acf.runs.launch import stop_with_launcher

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATIENCE = timedelta(days=14)
"""How long processes wait for a word of the first one, which may itself wait for another program to end."""
JOINING = timedelta(minutes=10)


@dataclass(frozen=True)
class BatchShare:
    """Rows `start` to `stop - 1` of a batch of `total` samples, which several processes share.

    Random numbers are drawn for the whole batch by every process, in the same order, and each takes its rows. So the
    result of a step does not depend on the number of processes, beyond the rounding of sums.
    """

    start: int
    stop: int
    total: int

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self, batch: "Tensor", dim: int = 0) -> "Tensor":
        """Return this share's rows of what was drawn for the whole batch, `total` along dimension `dim`."""
        return batch.narrow(dim, self.start, len(self))


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, of which this one is number `rank`, counted from 0; by default the only one.

    All methods that exchange something must be called by all ranks in the same order.

    Attributes:
        rank: number of this process.
        number: number of processes.
        local_rank: number of this process among those of its machine.
        control: group of processes through which hosts exchange numbers without asking their devices.
    """

    rank: int = 0
    number: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads, writes and prints."""
        return self.rank == 0

    def share(self, total: int) -> BatchShare:
        """Return the rows of a batch of `total` samples that this process computes; sizes differ by one at most."""
        return BatchShare(self.rank * total // self.number, (self.rank + 1) * total // self.number, total)

    def largest(self, *values: int) -> list[int]:
        """Return the largest that any rank has of each value."""
        if self.number == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        largest = torch.tensor(values, device="cpu")
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control)
        return [int(value) for value in largest]

    def from_first(self, value: Any = None) -> Any:
        """Return the value that the first rank has, anything that can be pickled."""
        if self.number == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def of_all(self, value: Any) -> list[Any]:
        """Return the values of all ranks, anything that can be pickled, by rank."""
        if self.number == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.number
        dist.all_gather_object(values, value, group=self.control)
        return values

    def add_up(self, tensors: Sequence["Tensor"]) -> None:
        """Replace tensors by their sums over all ranks, the same bits on each; those of one type in one exchange.

        The place of every value in the exchange is the same in every call, so that a training which was interrupted
        adds up in the same order as one that was not.
        """
        if self.number == 1:
            return
        import torch
        import torch.distributed as dist

        for dtype in dict.fromkeys(t.dtype for t in tensors):
            alike = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.flatten() for t in alike])
            dist.all_reduce(flat)
            parts = flat.split([t.numel() for t in alike])
            torch._foreach_copy_(alike, [part.view_as(t) for part, t in zip(parts, alike, strict=True)])

    def first_difference(self, tensors: Mapping[str, "Tensor"]) -> str | None:
        """Return the name of the first tensor whose norm is not the same, to the bit, on all ranks; None if all are.

        The host waits for the device.
        """
        if self.number == 1 or not tensors:
            return None
        import torch
        import torch.distributed as dist

        norms = torch.stack([t.detach().double().norm() for t in tensors.values()])
        both = torch.cat([norms, -norms]).nan_to_num(0.0)  # what is not finite is found by other means
        dist.all_reduce(both, dist.ReduceOp.MAX)
        highest, lowest = both.chunk(2)
        differing = (highest != -lowest).nonzero().flatten().tolist()
        return list(tensors)[differing[0]] if differing else None


ALONE = Ranks()


@contextmanager
def ranks_of_environment(device: "torch.device | None" = None) -> Iterator[Ranks]:
    """Join the other processes that `torchrun`, `srun` or `acf.runs.launch` has started; alone without them.

    Args:
        device: where tensors lie that are added up; NCCL carries those of CUDA, gloo all others.

    Raises:
        ConfigError: variables of the environment contradict each other, or name a machine that is not known.
        LostRankError: the others did not come, or have ended before this one.
    """
    place = Place.of_environment()
    if place is None or place.number == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    _require_known(os.environ.get("MASTER_ADDR", place.address))
    stop_with_launcher()
    os.environ.setdefault("MASTER_ADDR", place.address)
    os.environ.setdefault("MASTER_PORT", str(place.port))
    on_cuda = device is not None and device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    with told_of_lost_ranks():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo", rank=place.rank, world_size=place.number, timeout=JOINING
        )
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        with told_of_lost_ranks():
            yield Ranks(place.rank, place.number, place.local_rank, control)
    finally:
        dist.destroy_process_group()


def _require_known(address: str) -> None:
    try:
        socket.getaddrinfo(address, None)
    except OSError:
        raise ConfigError(
            f"the first process is said to be on {address!r}, which this machine does not know; set MASTER_ADDR to one "
            "that it knows"
        ) from None


@dataclass(frozen=True)
class Place:
    """What the environment says of this process among several: its numbers, and where the first one is reached."""

    rank: int
    number: int
    local_rank: int
    address: str
    port: int

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read the variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or else those of a step of `srun`.

        Raises:
            ConfigError: a variable is missing or is no number in range.
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            address, port = environment.get("MASTER_ADDR", "127.0.0.1"), environment.get("MASTER_PORT", "29500")
        elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
            address = environment.get("MASTER_ADDR") or _first_host(environment.get("SLURM_STEP_NODELIST", ""))
            # A port of the job's own, which all its tasks know without asking.
            step = sum(int(n) for n in re.findall(r"\d+", environment.get("SLURM_JOB_ID", "0"))[:1])
            port = environment.get("MASTER_PORT", str(20000 + step % 10000))
        else:
            return None
        rank, number, local_rank = (_number(environment, name) for name in names)
        if not rank < number or not local_rank < number:
            raise ConfigError(
                f"{names[0]} is {rank}, which is not below {names[1]} ({number}); start all by one command"
            )
        return cls(rank, number, local_rank, address, _number({"MASTER_PORT": port}, "MASTER_PORT"))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"the variable {name} is {text!r} in place of a number; start all by torchrun or srun")
    return int(text)


def _first_host(nodes: str) -> str:
    """Return the first of SLURM's list of nodes, "node[1-3],other"."""
    if not re.search(r"[\[,]", nodes):
        return nodes or "127.0.0.1"
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return names.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise ConfigError(f"scontrol cannot tell the first of the nodes {nodes}; set MASTER_ADDR to its name") from None


def several_ranks() -> bool:
    """Whether torch.distributed runs with several processes, whoever has started it."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def told_of_lost_ranks() -> Iterator[None]:
    """Turn torch's error of a connection that broke into a LostRankError."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        # Gloo's errors have no type of their own; all name their file.
        if not isinstance(error, dist.DistError) and not re.search("gloo|onnection|NCCL", str(error)):
            raise
        raise LostRankError(
            "another process of this training has ended or cannot be reached "
            f"({str(error).partition(chr(10))[0][:200]}); run the same command again, with any number of processes, "
            "to go on from the last checkpoint"
        ) from None
