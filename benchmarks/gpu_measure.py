"""Clocks, kernels, memory and floating-point operations of a step on one device, and the device's own ceilings."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from published_steps import Step, synchronise, take
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SEED, WARM, MOST_STEPS = 0, 2, 30
WARM_WITH_RECORDINGS = 12
"""Numbers of terms are drawn: it takes some steps until kernels have been recorded for all of them."""


def seed(value: int = SEED) -> None:
    """Seed what both codes draw from."""
    torch.manual_seed(value)
    np.random.seed(value)


def free(device: torch.device) -> None:
    """Give memory back that nothing uses, and begin to count its peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measure_step(step: Step, x: Tensor, seconds: float, warm: int = WARM) -> dict[str, Any]:
    """Milliseconds of a step in a row of steps without waiting in between, of the host alone, and peak memory.

    Args:
        step: the step.
        x: images.
        seconds: about how long the row may take; at least 3 steps, at most `MOST_STEPS`.
        warm: number of steps before that are not timed.
    """
    seed()
    first = float(take(step, x))
    for _ in range(warm - 1):
        take(step, x)
    synchronise(x)
    start = time.perf_counter()
    take(step, x)
    synchronise(x)
    count = int(min(MOST_STEPS, max(3, seconds / (time.perf_counter() - start))))
    seed()
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(count):
        last = take(step, x)
    cpu, host = time.process_time() - cpu, time.perf_counter() - start
    synchronise(x)
    wall = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(x.device) / 2**30 if x.is_cuda else None
    return {
        "steps": count,
        "ms": 1e3 * wall / count,
        "host_ms": 1e3 * host / count,
        "cpu_ms": 1e3 * cpu / count,
        "images_per_second": len(x) * count / wall,
        "peak_gib": memory,
        "first_loss": first,
        "last_loss": float(last),
    }


def profile_step(step: Step, x: Tensor) -> dict[str, Any]:
    """Kernels of one step, and the share of the same step, with the same random numbers, in which one of them runs.

    The share relates seconds of kernels under the profiler to seconds of the step without it. On a CPU all is None.
    """
    if not x.is_cuda:
        return {"kernels": None, "kernel_ms": None, "busy": None, "top": []}
    seed()
    start = time.perf_counter()
    take(step, x)
    synchronise(x)
    wall = time.perf_counter() - start
    seed()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        take(step, x)
        synchronise(x)
    times: Counter[str] = Counter()
    kernels = 0
    for name, microseconds in _device_events(profile):
        times[name] += microseconds
        kernels += 1
    total = sum(times.values())
    top = [[name[:90], round(1e-3 * value, 3)] for name, value in times.most_common(12)]
    return {
        "kernels": kernels,
        "kernel_ms": 1e-3 * total,
        "profiled_step_ms": 1e3 * wall,
        "busy": 1e-6 * total / wall,
        "top": top,
    }


def _device_events(profile: Any) -> list[tuple[str, float]]:
    """Name and microseconds of everything that ran on the device."""
    raw = getattr(profile.profiler, "kineto_results", None)
    if raw is not None and hasattr(raw.events()[0] if raw.events() else None, "duration_ns"):
        cuda = torch.autograd.DeviceType.CUDA
        return [(e.name(), 1e-3 * e.duration_ns()) for e in raw.events() if e.device_type() == cuda]
    return [
        (event.name, event.device_time_total)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]


class Operations(TorchDispatchMode):
    """Counts floating-point operations of matrix products and convolutions, in backward passes too.

    By the formulas of `torch.utils.flop_counter`, whose own mode also follows modules, which functions with explicit
    derivatives do not allow.

    Attributes:
        total: operations so far; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        return out


def operations_of(step: Step, x: Tensor) -> int:
    """Floating-point operations of the matrix products and convolutions of one step."""
    seed()
    with Operations() as operations:
        take(step, x)
    return operations.total


def ceilings(device: torch.device, size: int) -> dict[str, float]:
    """TFLOP/s of a product of square matrices in each precision, and TB/s of a copy, on random data."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    found = {}
    with precision(tf32=False):
        found["float32 TFLOP/s"] = 2 * size**3 / _seconds(lambda: a @ b, a) / 1e12
    with precision(tf32=True):
        found["TF32 TFLOP/s"] = 2 * size**3 / _seconds(lambda: a @ b, a) / 1e12
    low = a.bfloat16(), b.bfloat16()
    found["bfloat16 TFLOP/s"] = 2 * size**3 / _seconds(lambda: low[0] @ low[1], a) / 1e12
    source = torch.randn(16, size, size, device=device)
    target = torch.empty_like(source)
    found["copy TB/s"] = 2 * source.numel() * 4 / _seconds(lambda: target.copy_(source), a) / 1e12
    return found


def _seconds(call: Callable[[], Any], x: Tensor, repeats: int = 5) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats + 2):
        synchronise(x)
        start = time.perf_counter()
        call()
        synchronise(x)
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


@contextmanager
def precision(tf32: bool = False, deterministic: bool = False, benchmark: bool = False) -> Iterator[None]:
    """Within, TF32 and cuDNN's choice of algorithms are as given; afterwards, as they were."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = tf32, tf32, deterministic, benchmark
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
