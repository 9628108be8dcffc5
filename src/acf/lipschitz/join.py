"""How attention joins the features of a branch: ways that keep the bound at 1."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from acf.lipschitz.layer import (
    VJP,
    Tensors,
    effective_tensors,
    intermediate_values,
    supports_bfloat16,
    value_and_jvp,
    value_and_vjp,
)


class Join(nn.Module):
    """Base of the ways to join features x (B, C, ...) and a 1-Lipschitz map A that keeps the shape.

    Args:
        inner: A.

    Attributes:
        widening: channels of the result per channel of x.
    """

    widening = 1

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @classmethod
    def over(cls, make: Callable[[int], nn.Module], channels: int, share: float) -> Self:
        """Join features of `channels` channels with the map that `make` makes, at the given share to start with."""
        return cls(make(channels), share)  # type: ignore[call-arg]

    def share(self) -> float:
        """Weight of attention: 0 means idle, 1 that x itself is dropped."""
        raise NotImplementedError

    def intermediate_values(self, positions: int) -> int:
        """Values of the inner map's largest intermediate result."""
        return intermediate_values(self.inner, positions)

    @property
    def supports_bfloat16(self) -> bool:
        """Whether the inner map can be computed in bfloat16."""
        return supports_bfloat16(self.inner)

    def _inner_bound(self, n_tokens: int) -> float:
        return self.inner.lipschitz_bound(n_tokens)  # type: ignore[operator]


class ConvexShare(Join):
    """x -> (1 - s) x + s A(x), s = sigmoid(gamma) learnt, so that Lip <= (1 - s) + s Lip(A) (Proposition 6a).

    The published x + gamma A(x) with free gamma has no bound below 1 + |gamma|.

    Args:
        inner: the map A, which keeps the shape.
        share: s at the start, in (0, 1).
    """

    def __init__(self, inner: nn.Module, share: float = 0.5) -> None:
        super().__init__(inner)
        self.gamma = nn.Parameter(torch.logit(torch.tensor(share)))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape `inner` takes."""
        return torch.lerp(x, self.inner(x), torch.sigmoid(self.gamma))

    def effective_tensors(self) -> Tensors:
        """Share, and the tensors of A."""
        return torch.sigmoid(self.gamma), effective_tensors(self.inner)

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and the same combination of cotangents."""
        share, inner = tensors
        y, pull = value_and_vjp(self.inner, x, inner, dtype)
        return torch.lerp(x, y, share), lambda v: torch.lerp(v, pull(v.clone()), share)

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        share, inner = tensors
        return torch.lerp(z, value_and_jvp(self.inner, z, inner), share)

    def share(self) -> float:
        """Return s."""
        return float(torch.sigmoid(self.gamma.detach().cpu().double()))

    def lipschitz_bound(self, n_tokens: int) -> float:
        """(1 - s) + s Lip(A)."""
        return (1 - self.share()) + self.share() * self._inner_bound(n_tokens)


class Concatenation(Join):
    """x -> [cos(a) x ; sin(a) A(x)] along the channels, a learnt: Lip^2 <= cos(a)^2 + sin(a)^2 Lip(A)^2.

    At equal weight both parts keep 0.71 of their size, where a convex share leaves 0.5; the price is a next layer of
    twice the input channels (Proposition 6b).

    Args:
        inner: the map A, which keeps the shape.
        share: sin(a)^2 at the start, in (0, 1).
    """

    widening = 2

    def __init__(self, inner: nn.Module, share: float = 0.5) -> None:
        super().__init__(inner)
        self.angle = nn.Parameter(torch.tensor(share).sqrt().asin())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C + D, ...) where A gives (B, D, ...)."""
        return torch.cat([self.angle.cos() * x, self.angle.sin() * self.inner(x)], 1)

    def effective_tensors(self) -> Tensors:
        """Cosine, sine, and the tensors of A."""
        return self.angle.cos(), self.angle.sin(), effective_tensors(self.inner)

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and the sum of both parts' cotangents."""
        cos, sin, inner = tensors
        y, pull = value_and_vjp(self.inner, x, inner, dtype)
        channels = x.shape[1]
        return torch.cat([cos * x, sin * y], 1), lambda v: cos * v[:, :channels] + pull(sin * v[:, channels:])

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        cos, sin, inner = tensors
        return torch.cat([cos * z, sin * value_and_jvp(self.inner, z, inner)], 1)

    def share(self) -> float:
        """sin(a)^2."""
        return float(self.angle.detach().cpu().double().sin().square())

    def lipschitz_bound(self, n_tokens: int) -> float:
        """sqrt(cos(a)^2 + sin(a)^2 Lip(A)^2)."""
        return float((1 - self.share() + self.share() * self._inner_bound(n_tokens) ** 2) ** 0.5)


class ChannelSplit(Join):
    """[x_1 ; x_2] -> [x_1 ; A(x_2)]: attention has channels of its own, so Lip <= max(1, Lip(A)) (Proposition 6c).

    Neither part gives up contraction for the other; what it costs is width. The share of the channels is not learnt:
    the layers around decide what to send there.

    Args:
        inner: the map A of the last channels.
        passed: number of channels x_1 that pass unchanged.
        attended: number of channels x_2.
    """

    def __init__(self, inner: nn.Module, passed: int, attended: int) -> None:
        super().__init__(inner)
        self.passed, self.attended = passed, attended

    @classmethod
    def over(cls, make: Callable[[int], nn.Module], channels: int, share: float) -> Self:
        """Give attention the nearest number of channels to `share` of them, at least one."""
        attended = max(1, round(share * channels))
        return cls(make(attended), channels - attended, attended)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        passed, attended = self._parts(x)
        return torch.cat([passed, self.inner(attended)], 1)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([self.passed, self.attended], 1)

    def effective_tensors(self) -> Tensors:
        """Return the tensors of A."""
        return effective_tensors(self.inner)

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and both parts' cotangents."""
        passed, attended = self._parts(x)
        y, pull = value_and_vjp(self.inner, attended, tensors, dtype)

        def pull_parts(v: Tensor) -> Tensor:
            first, last = self._parts(v)
            return torch.cat([first, pull(last)], 1)

        return torch.cat([passed, y], 1), pull_parts

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        passed, attended = self._parts(z)
        return torch.cat([passed, value_and_jvp(self.inner, attended, tensors)], 1)

    def share(self) -> float:
        """Share of the channels."""
        return self.attended / (self.attended + self.passed)

    def lipschitz_bound(self, n_tokens: int) -> float:
        """max(1, Lip(A))."""
        inner = self._inner_bound(n_tokens)
        return 1.0 if inner <= 1 else inner  # also where it is not a number
