"""The base of all self-attentions: tokens are the positions of a feature map, channels are split into heads."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.first_batch import StartedByFirstBatch, samples_of_all_ranks
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.orthogonal_linear import OrthogonalLinear
from acf.settings.config import AttentionConfig


class SelfAttention(StartedByFirstBatch, LipschitzLayer):
    """(B, C, H, W) -> (B, C, H, W): project, attend in each head, join the heads.

    With `project` and `output` of norm at most 1 (all heads stacked in one matrix) and a `core` that is 1-Lipschitz in
    its arguments jointly, head by head, x -> output(core(project(x))) is 1-Lipschitz (Proposition 5 of
    docs/mathematics.md). The number of heads need not divide C: tokens of a head have ceil(C / heads) channels unless
    `head_width` is given. With C channels a head can form every bilinear form of two tokens.

    The first forward pass in training mode sets the scales of the core (bandwidth, radii) from its tokens, as ActNorm
    does with its scales. At a scale far from that of the tokens all logits are nearly equal, or all tokens are clipped,
    and the gradients that could change this nearly vanish. An empty batch and heads whose tokens do not differ set
    nothing; a batch with values that are not finite is refused (InputError).

    With a `window` the map is cut into windows, each a set of tokens of its own. All of them together have the bound of
    one, as squares of lengths add.

    Attributes:
        window: height and width of the windows; sides of maps that are longer must be multiples of it. None for none.

    Args:
        channels: C.
        heads: number of heads.
        projections: how many vectors the core takes per token and head (1: tied query, key and value).
        coefficient: largest norm of each of the two projections.
        head_width: channels of a head's tokens.
    """

    window: int | None = None

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

    @classmethod
    def options(cls, config: AttentionConfig, size: tuple[int, int]) -> dict[str, Any]:
        """Return what the constructor takes, beside channels, heads, coefficient and head width, of the settings.

        Args:
            config: the settings.
            size: (H, W) of the maps, or of the windows that they are cut into.
        """
        return {}

    def core(self, *projected: Tensor) -> Tensor:
        """Return the attention's output (B, heads, N, d) for its `projections` arguments (B, heads, N, d).

        In each head it must be 1-Lipschitz in all arguments jointly. By default it is P V of `weights_and_values`, so
        that the weights which are shown are those which are used; a core of another form overrides this method instead.
        """
        weights, values = self.weights_and_values(*projected)
        return weights @ values

    def weights_and_values(self, *projected: Tensor, heads: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the weights P (B, h, N, N) and the values V (B, h, N, d) of which the core is the product P V.

        Args:
            projected: the arguments of `core`.
            heads: which of the heads, h of them; one head at a time takes less memory.

        Raises:
            NotImplementedError: the core of this attention is not of that form.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither weights_and_values nor a core of its own")

    def weights_and_values_of(self, x: Tensor, heads: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return `weights_and_values` of some heads for maps x (B, C, H, W): rows of P are queries, columns keys.

        Positions are counted row by row. Between positions of different windows the weights are zero. With all heads,
        `output(merge_heads(P V))` is this layer's value at x.

        Raises:
            NotImplementedError: as `weights_and_values`.
        """
        projected = split_projections(self.project(self.tokens_of(x)), self.projections, self.heads)
        weights, values = self.weights_and_values(*projected, heads=heads)
        if self.window is None:
            return weights, values
        n_tokens = x.shape[2:].numel()
        positions = torch.arange(n_tokens, device=x.device).view(1, 1, *x.shape[2:])
        places = to_tokens(positions, self.window_of(x)).squeeze(-1)  # (windows, tokens of a window)
        shape = len(x), weights.shape[1], n_tokens
        parts = len(x), len(places)
        all_weights, all_values = weights.new_zeros(*shape, n_tokens), values.new_zeros(*shape, values.shape[-1])
        all_weights[:, :, places[:, :, None], places[:, None, :]] = weights.unflatten(0, parts).transpose(1, 2)
        all_values[:, :, places] = values.unflatten(0, parts).transpose(1, 2)
        return all_weights, all_values

    def window_of(self, x: Tensor) -> tuple[int, int]:
        """Return (height, width) of the windows of maps x (B, C, H, W): (H, W) where they are not cut."""
        height, width = x.shape[2:]
        return (height, width) if self.window is None else (min(self.window, height), min(self.window, width))

    def tokens_of(self, x: Tensor) -> Tensor:
        """Return the tokens (B, N, C) of maps x (B, C, H, W), each window counted as a sample of its own."""
        return to_tokens(x, self.window_of(x))

    def match_scales(self, *projected: Tensor) -> None:
        """Set the scales of the core from its first arguments (B, heads, N, d); by default it has none.

        Statistics have to be those of all ranks (`acf.lipschitz.first_batch`), and are checked before any is stored.

        Raises:
            InputError: they are not finite.
        """
        return

    @override
    def forward(self, x: Tensor) -> Tensor:
        projected = split_projections(self.project(self.tokens_of(x)), self.projections, self.heads)
        self._match_scales_once(projected)
        return to_maps(self.output(merge_heads(self.core(*projected))), x.shape, self.window_of(x))

    @torch.no_grad()
    def _match_scales_once(self, projected: Tensor) -> None:
        if self.training and not self.is_started() and samples_of_all_ranks(projected[0]) > 0:
            self.match_scales(*projected.detach())
            self.set_started()

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        """Return the product of both projections' bounds; infinite where a parameter of the core is not finite."""
        if n_tokens < 1:
            raise ValueError(f"attention needs at least one token, got {n_tokens}")
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters(recurse=False)):
            return math.inf
        return self.project.lipschitz_bound() * self.output.lipschitz_bound()

    @override
    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}"


def to_tokens(x: Tensor, window: tuple[int, int] | None = None) -> Tensor:
    """(B, C, H, W) -> (B, N, C), or, for windows (h, w) of n tokens, (B N / n, n, C), row by row in both."""
    if window is None or window == tuple(x.shape[2:]):
        return x.flatten(2).transpose(1, 2)
    height, width = window
    if x.shape[2] % height or x.shape[3] % width:
        raise ValueError(f"windows of {height} x {width} do not divide maps of {x.shape[2]} x {x.shape[3]}")
    cut = x.unflatten(2, (-1, height)).unflatten(4, (-1, width))
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, height * width, x.shape[1])


def to_maps(tokens: Tensor, shape: torch.Size, window: tuple[int, int] | None = None) -> Tensor:
    """Return the maps of this shape (B, C, H, W) whose `to_tokens` are these."""
    if window is None or window == tuple(shape[2:]):
        return tokens.transpose(1, 2).reshape(shape)
    _, channels, rows, columns = shape
    height, width = window
    cut = tokens.reshape(-1, rows // height, columns // width, height, width, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(shape)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


def split_projections(tokens: Tensor, projections: int, heads: int) -> Tensor:
    """(B, N, projections * heads * d) -> (projections, B, heads, N, d)."""
    return tokens.unflatten(-1, (projections, heads, -1)).permute(2, 0, 3, 1, 4).contiguous()


def merge_projections(projected: Tensor) -> Tensor:
    """(projections, B, heads, N, d) -> (B, N, projections * heads * d)."""
    return projected.permute(1, 3, 0, 2, 4).flatten(2)
