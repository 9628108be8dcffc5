"""The density of images, by maximum likelihood."""

from collections.abc import Mapping

from torch import Tensor

from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.runs.ranks import BatchShare
from acf.settings.config import TrainingConfig


class Density:
    """The loss is bits/dim, -log2 p(x) / D + log2(levels)."""

    measures = ("bits_per_dim",)

    def __init__(self, config: TrainingConfig) -> None:
        """Take nothing from the settings."""

    def measure(self, flow: Flow, x: Tensor, labels: Tensor | None, share: BatchShare | None) -> dict[str, Tensor]:
        """Return the bits/dim of each image."""
        return {"bits_per_dim": bits_per_dim_of(flow.log_prob_unchecked(x, share=share), flow.config)}

    def loss(self, measured: Mapping[str, Tensor]) -> Tensor:
        """Return the bits/dim."""
        return measured["bits_per_dim"]
