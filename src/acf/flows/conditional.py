"""What makes a density conditional, p(x | c): features of c, and affine maps of x that are functions of them."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import InputError
from acf.flows.bijection import PreparedBijection
from acf.flows.inputs import lies_within
from acf.flows.prepared import Prepared
from acf.settings.config import ConditionConfig

LARGEST_LOG_SCALE = 2.0
"""Scales lie between exp(-2) and exp(2), so that none explodes for a c unlike those of training."""


class ConditionFeatures(nn.Module):
    """c -> features (B, width): an embedding of labels, or a network of two layers for vectors.

    They are not Lipschitz in c, and need not be, as no contractive block sees them.

    Args:
        config: gives the kind of c, which must be given, and the width.
    """

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        self.config = config
        self.network: nn.Module
        if config.classes is not None:
            self.network = nn.Embedding(config.classes, config.width)
        else:
            assert config.size is not None
            self.network = nn.Sequential(
                nn.Linear(config.size, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
            )

    @override
    def forward(self, condition: Tensor) -> Tensor:
        # A step of Adam changes each weight alike, so the sum over features changes the less the smaller they are.
        features: Tensor = self.network(condition) / math.sqrt(self.config.width)
        return features

    def require(self, condition: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
        """Return the condition of a batch; one row stands for all samples.

        Args:
            condition: labels (B,) or (1,), integers, or vectors (B, size) or (1, size).
            batch: number B of samples.
            dtype: of the flow's weights.

        Raises:
            InputError: another shape or type, a label that does not exist, or a value that is not finite.
        """
        config = self.config
        trailing = () if config.size is None else (config.size,)
        if condition.dim() != 1 + len(trailing) or tuple(condition.shape[1:]) != trailing:
            raise InputError(f"expected a condition of shape {_written(batch, trailing)}, got {tuple(condition.shape)}")
        given = condition.shape[0]
        if given not in (1, batch):
            raise InputError(f"{given} conditions for a batch of {batch}: give one for each sample, or one")
        if config.classes is not None:
            if condition.is_floating_point() or condition.is_complex() or condition.dtype == torch.bool:
                raise InputError(f"expected labels, whole numbers below {config.classes}, got {condition.dtype}")
            condition = condition.long()
            _require_between(condition, 0, config.classes - 1, f"labels from 0 to {config.classes - 1}")
        else:
            if condition.dtype != dtype:
                raise InputError(f"the condition is {condition.dtype} and the flow {dtype}; convert one of them")
            largest = torch.finfo(dtype).max
            _require_between(condition, -largest, largest, "finite values of the condition")
        return condition.expand(batch, *trailing)


def _written(batch: int, trailing: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, (batch, *trailing)))}{',' if not trailing else ''})"


def _require_between(values: Tensor, low: float, high: float, what: str) -> None:
    if not lies_within(values, (low, high)):
        least, most = values.detach().aminmax()
        raise InputError(f"expected {what}, got values from {float(least):.4g} to {float(most):.4g}")


class ConditionalAffine(PreparedBijection):
    """y = exp(s(c)) x + b(c), with the same s and b per channel at all positions; log|det| = H W sum_C s(c).

    s = a tanh(r / a) with a = LARGEST_LOG_SCALE, and (r, b) a linear function of the features of c. At the start both
    are 0 and y is x. For each c the map is affine in x and invertible, so a block x + g(x) between two of them keeps
    its proof of contraction, whatever c is: g is a function of x alone.

    Args:
        shape: (C, H, W) of the maps.
        width: number of features of c.
    """

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, self.width = shape[0], shape[1], width
        self.positions = height * shape[2]
        self.linear = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._of(None if prepared is None else prepared.condition)
        return x * log_scale.exp() + shift, log_scale.flatten(1).sum(1) * self.positions

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        log_scale, shift = self._of(condition)
        return x * log_scale.exp() + shift

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return exp(-s(c)) (y - b(c))."""
        log_scale, shift = self._of(condition)
        return (y - shift) * (-log_scale).exp()

    def _of(self, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(s, b), each (B, C, 1, 1)."""
        if features is None:
            raise InputError("this map depends on a condition, and none was given")
        raw, shift = self.linear(features).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
        return LARGEST_LOG_SCALE * (raw / LARGEST_LOG_SCALE).tanh(), shift
