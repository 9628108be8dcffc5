"""Samples of a flow on vectors in the units of their table, and the error of its inverse."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acf.data.prepared.manifest import Column
from acf.data.prepared.tensors import Vectors
from acf.flows.flow import Flow
from acf.settings.config import SamplingConfig


class SampledRows(NamedTuple):
    """What was drawn of one model.

    Attributes:
        samples: (n, D), float64, in the units of the table.
        test: test rows (m, D), likewise.
        numbers: as JSON can hold them.
    """

    samples: Tensor
    test: Tensor
    numbers: dict[str, Any]


@torch.no_grad()
def sampled_rows(flow: Flow, test: Vectors, columns: Sequence[Column], config: SamplingConfig) -> SampledRows:
    """Draw samples at the first temperature, and reconstruct test rows.

    Args:
        flow: on standardised vectors.
        test: test rows, standardised; as many as there are samples are compared with them.
        columns: mean and standard deviation of each value in the table.
        config: numbers of samples and reconstructions, temperatures and seed.

    Returns:
        The samples, the test rows that they are compared with, and the numbers `temperature`, `samples`, `test_rows`,
        `columns` (`name`, and of samples and test rows mean and standard deviation, the latter None of one row), and
        `reconstructions`: per test row the largest |x - f^-1(f(x))| and the largest proven error (l2) of any block's
        solution, both in standardised units.

    Raises:
        NotContractiveError: a block is not proven contractive, so the flow is not inverted.
        ConvergenceError: a fixed-point iteration did not reach its accuracy; names the block.
    """
    parameter = next(flow.parameters())
    generator = torch.Generator().manual_seed(config.seed)
    drawn = flow.sample(config.samples, config.temperatures[0], generator)
    samples, rows = (in_units(x, columns) for x in (drawn, test[: config.samples]))
    x = test[: config.reconstructions].to(parameter.device, parameter.dtype)
    inversion = flow.invert(flow.transform(x))
    bounds = torch.stack(list(inversion.bounds.values())) if inversion.bounds else torch.zeros(1, len(x))
    numbers = {
        "temperature": config.temperatures[0],
        "samples": len(samples),
        "test_rows": len(rows),
        "columns": [
            {"name": column.name, "of_samples": _moments(samples[:, j]), "of_test": _moments(rows[:, j])}
            for j, column in enumerate(columns)
        ],
        "reconstructions": {
            "largest": (x - inversion.x).abs().amax(1).tolist(),
            "block_bound": bounds.max(0).values.tolist(),
        },
    }
    return SampledRows(samples, rows, numbers)


def in_units(x: Tensor, columns: Sequence[Column]) -> Tensor:
    """Return standardised vectors (N, D) in the units of the table, mean + std x, in float64 on the CPU."""
    mean, std = (torch.tensor([getattr(c, what) for c in columns], dtype=torch.float64) for what in ("mean", "std"))
    return mean + std * x.cpu().double()


def _moments(values: Tensor) -> dict[str, float | None]:
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else None}
