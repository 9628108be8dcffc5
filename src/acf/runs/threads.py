"""The threads of a computation: as many as pay, within the share of the machine that the process was given."""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

VALUES_PER_THREAD = 250_000
"""Values of the largest tensor for which one more thread pays.

A second thread that waits passively made a training step of one block (two cores, best of 3 to 6 turns) 0.75 times as
fast at 76,000 values (digits), 1.3 times at 303,000 and at 524,000, 1.1 times at 803,000 and 1.4 to 1.7 times at
1,606,000. A gain of 1.3 costs more of the machine than it brings where several models train.
benchmarks/shared_machine.py measures it again.
"""
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What OpenMP reads when torch is loaded: a thread that waits for another goes to sleep.

GNU's OpenMP, which torch's wheels for Linux bring along, first turns 300,000 times through a loop otherwise, which is
milliseconds in each of the thousands of operations of a step. Where other programs want the cores, a thread then spins
on one while the thread it waits for gets none. A shorter loop (`GOMP_SPINCOUNT` of 2,000 and 20,000) was not faster
than none by more than the noise.
"""
KNOWN = frozenset({*WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"})
"""All variables that say how threads wait, those of GNU's and Intel's OpenMP included."""


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads that wait for each other leave their cores to others, unless `environment` says how they wait.

    To be called by a program, before it loads torch; a library leaves the process to its user.
    """
    if not KNOWN & environment.keys():
        environment.update(WAITING)


def threads_that_pay(values: int) -> int:
    """Return the number of threads that pay for operations on tensors of `values` values, at least one."""
    return max(1, values // VALUES_PER_THREAD)


def threads_given() -> int:
    """Return the number of threads that this process may use.

    It is the least of what torch would take (`OMP_NUM_THREADS`, which Snakemake sets to its rule's `threads`;
    `MKL_NUM_THREADS`; cores without their second threads; what the process has set), of the CPUs that affinity and the
    quota of the container allow, and of `SLURM_CPUS_PER_TASK`.
    """
    import torch
    from joblib import cpu_count  # of affinity and quota

    limits = [torch.get_num_threads(), cpu_count()]
    if (allotted := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        limits.append(int(allotted))
    return max(1, min(limits))


@contextmanager
def paying_threads(values: int) -> Iterator[int]:
    """Compute with the threads that pay, of those given; afterwards torch has as many as before.

    Args:
        values: of the largest tensor that operations work on.
    """
    import torch

    before = torch.get_num_threads()
    number = min(threads_that_pay(values), threads_given())
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)
