"""Seconds that the certificates of paper-size flows take on two threads: python benchmarks/certificate.py.

Writes results/certificate.json beside this file. On a machine shared with other work set OMP_WAIT_POLICY=passive: else
threads that wait for each other keep the cores busy, and the times are many times longer.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

import acf
from acf.lipschitz.bounds.norms import conv_norm_bound
from acf.runs.device import describe_device

T = TypeVar("T")

RESULT = Path(__file__).parent / "results" / "certificate.json"
SCALES = [((3, 32, 32), 16), ((12, 16, 16), 16), ((48, 8, 8), 16)]
RESIDUAL_FLOW = {"shape": [3, 32, 32], "blocks": [16, 16, 16], "idim": 512}  # CIFAR-10, arXiv 1906.02735
GROWTH, DEPTH = 172, 3


def dense_blocks(blocks: int, channels: int, height: int, width: int) -> None:
    """Norm bounds of the convolutions of i-DenseNet blocks (arXiv 2102.02694); the activation doubles channels."""
    for _ in range(blocks):
        inputs = [channels + GROWTH * layer for layer in range(DEPTH)]
        layers = [torch.nn.Conv2d(n, GROWTH // 2, 3) for n in inputs]
        layers.append(torch.nn.Conv2d(channels + GROWTH * DEPTH, channels, 1))
        for layer in layers:
            conv_norm_bound(layer.weight, height, width)


def timed(name: str, work: Callable[[], T], record: dict[str, dict[str, float]]) -> T:
    """Run `work`; print and record its wall-clock seconds and, less altered by a busy machine, processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    record[name] = {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    print(f"{name}: {record[name]['seconds']} s, processor {record[name]['cpu_seconds']} s", flush=True)
    return result


def main() -> None:
    """Time everything once, after a first call that loads the libraries."""
    load = os.getloadavg()[0]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    conv_norm_bound(torch.randn(8, 8, 3, 3), 4, 4)
    times: dict[str, dict[str, float]] = {}
    flow = timed("resflow 16-16-16: build", lambda: acf.build(RESIDUAL_FLOW), times)
    timed("resflow 16-16-16: certify", lambda: acf.certify(flow), times).require()
    for shape, blocks in SCALES:
        name = f"i-densenet: bounds of {blocks} blocks at {'x'.join(map(str, shape))}"
        timed(name, partial(dense_blocks, blocks, *shape), times)
    RESULT.parent.mkdir(exist_ok=True)
    record = {
        "machine": describe_device(torch.device("cpu")),
        "load_before": round(load, 1),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "times": times,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
