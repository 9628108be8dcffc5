"""Real processes that compute together, by gloo."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from acf.runs.ranks import Ranks

needs_gloo = pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs gloo")
RANKS = 2


def in_every_rank(function: Any, folder: Path) -> list[Any]:
    """Return what function(rank) returns in two processes, by rank.

    They are forked from a process that has imported the package once, which takes seconds.
    """
    multiprocessing.set_forkserver_preload(["acf.flows.build", "acf.training.trainer"])
    multiprocessing.start_processes(_run, (function, folder), nprocs=RANKS, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def _run(rank: int, function: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    try:
        torch.save(function(rank), folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def joined() -> Ranks:
    """The ranks of `in_every_rank`, seen from one of them."""
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.get_rank(), dist.new_group(backend="gloo"))
