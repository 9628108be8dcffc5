"""What the attentions share: tokens are the positions of a feature map, channels are split into heads."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from acf.lipschitz.normalised import OrthogonalLinear


class SelfAttention(nn.Module, ABC):
    """(B, C, H, W) -> (B, C, H, W): project, attend in each head, join the heads.

    With `project` and `output` of norm at most 1 (all heads stacked in one matrix) and a `core` that is 1-Lipschitz in
    its arguments jointly, head by head, x -> output(core(project(x))) is 1-Lipschitz (Proposition 5 of
    docs/mathematics.md). Any number of heads will do. Tokens of a head have ceil(C / heads) channels unless
    `head_width` says otherwise; with C of them every head can compare tokens in any way there is.

    The first forward pass in training mode sets the scales of the core (bandwidth, radii) to those of its tokens, as
    ActNorm does with its scales: at any other scale a head would start, and stay, blind to differences of tokens.

    Args:
        channels: C.
        heads: number of heads.
        projections: how many vectors the core takes per token and head (1: tied query, key and value).
        coefficient: largest norm of each of the two projections.
        head_width: channels of a head's tokens.
    """

    initialised: Tensor

    def __init__(
        self, channels: int, heads: int, projections: int, coefficient: float, head_width: int | None = None
    ) -> None:
        super().__init__()
        if channels < 1 or heads < 1:
            raise ValueError(f"attention needs at least one channel and one head, got {channels} and {heads}")
        self.channels, self.heads, self.projections = channels, heads, projections
        self.head_width = head_width or math.ceil(channels / heads)
        inner = heads * self.head_width
        # A shift of tied tokens passes through to the output, which has a bias of its own.
        self.project = OrthogonalLinear(channels, projections * inner, projections > 1, coefficient)
        self.output = OrthogonalLinear(inner, channels, True, coefficient)
        for layer in (self.project, self.output):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.register_buffer("initialised", torch.tensor(False))

    @abstractmethod
    def core(self, *projected: Tensor) -> Tensor:
        """Attend: each argument and the result (B, heads, N, d); in each head 1-Lipschitz in all arguments jointly."""

    def match_scales(self, *projected: Tensor) -> None:
        """Set the scales of the core to those of its arguments; nothing for a core that has none."""
        return

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        stacked = self._split(self.project(tokens(x)))
        self._start_scales(stacked)
        return maps(self.output(merge_heads(self.core(*stacked))), x.shape)

    def _split(self, projected: Tensor) -> Tensor:
        """(B, N, projections * heads * d) -> (projections, B, heads, N, d)."""
        return projected.unflatten(-1, (self.projections, self.heads, -1)).permute(2, 0, 3, 1, 4).contiguous()

    @torch.no_grad()
    def _start_scales(self, stacked: Tensor) -> None:
        if self.training and not self.initialised:
            self.match_scales(*stacked.detach())
            self.initialised.fill_(True)

    def lipschitz_bound(self, n_tokens: int) -> float:
        """Proven upper bound of the layer's l2 Lipschitz constant on maps with `n_tokens` positions.

        Infinite where a learnt parameter of the core is not finite.
        """
        if n_tokens < 1:
            raise ValueError(f"attention needs at least one token, got {n_tokens}")
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters(recurse=False)):
            return math.inf
        return self.project.lipschitz_bound() * self.output.lipschitz_bound()

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, heads={self.heads}"


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def maps(tokens: Tensor, shape: torch.Size) -> Tensor:
    """(B, N, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(shape)


def merge_heads(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)
