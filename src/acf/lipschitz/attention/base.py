"""What the attentions share: tokens are the positions of a feature map, channels are split into heads."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from acf.lipschitz.normalised import NormalisedLinear


class SelfAttention(nn.Module, ABC):
    """(B, C, H, W) -> (B, C, H, W): project, attend in each head, join the heads, divide by the proven constant.

    With `project` and `output` of norm at most 1 (all heads stacked in one matrix) and an attention core whose joint
    Lipschitz constant over all heads is `core_constant(N)`, x -> output(core(project(x))) / core_constant(N) has
    Lipschitz constant at most 1 (docs/mathematics.md, section on heads).

    Args:
        channels: C.
        heads: number of heads; divides C.
        projections: how many vectors of C channels the core takes per token (1: tied query, key and value).
        coefficient: largest norm of each of the two projections.
    """

    def __init__(self, channels: int, heads: int, projections: int, coefficient: float) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.channels, self.heads, self.projections = channels, heads, projections
        self.project = NormalisedLinear(channels, projections * channels, False, coefficient, orthogonal=True)
        self.output = NormalisedLinear(channels, channels, True, coefficient, orthogonal=True)

    @abstractmethod
    def core(self, *projected: Tensor) -> Tensor:
        """Attend: each argument and the result (B, heads, N, C / heads)."""

    @abstractmethod
    def core_constant(self, n_tokens: int) -> float:
        """Proven joint Lipschitz constant of `core` for N tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        stacked = self.project(tokens).unflatten(-1, (self.projections, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.core(*stacked).transpose(1, 2).flatten(2)
        mixed = self.output(mixed / self.core_constant(height * width))
        return mixed.transpose(1, 2).reshape(batch, channels, height, width)

    def lipschitz_bound(self, n_tokens: int) -> float:
        """Proven upper bound of the layer's l2 Lipschitz constant on maps with `n_tokens` positions."""
        self.core_constant(n_tokens)  # refuses an impossible number of tokens
        return self.project.lipschitz_bound() * self.output.lipschitz_bound()
