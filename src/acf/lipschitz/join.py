"""How attention joins the features of a branch: three ways, each with a bound of 1 if attention has one."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.effective import Described, Description, Scalar
from acf.lipschitz.layer import VJP, LipschitzLayer, Pullback, Tensors


class Join(Described):
    """Base of the ways to join features x (B, C, ...) and a 1-Lipschitz map A of them.

    Args:
        inner: A.

    Attributes:
        widening: channels of the result per channel of x.
    """

    widening = 1

    def __init__(self, inner: LipschitzLayer) -> None:
        super().__init__()
        self.inner = inner

    @classmethod
    @abstractmethod
    def for_channels(cls, make_inner: Callable[[int], LipschitzLayer], channels: int, share: float) -> Self:
        """Build the layer for features of a given width.

        Args:
            make_inner: constructor of A, called with the number of channels that A gets.
            channels: C.
            share: weight of A at the start, in (0, 1).
        """

    @abstractmethod
    def share(self) -> float:
        """Return the weight of A: at 0 the result does not depend on A, at 1 it depends on x through A only."""

    @property
    @override
    def supports_bfloat16(self) -> bool:
        return self.inner.supports_bfloat16

    @override
    def intermediate_values(self, positions: int) -> int:
        return self.inner.intermediate_values(positions)


class ConvexShare(Join):
    """x -> (1 - s) x + s A(x), s = sigmoid(gamma) learnt, so that Lip <= (1 - s) + s Lip(A) (Proposition 6a).

    The published x + gamma A(x) with free gamma has no bound below 1 + |gamma|.

    Args:
        inner: the map A, which keeps the shape.
        share: s at the start, in (0, 1).
    """

    def __init__(self, inner: LipschitzLayer, share: float = 0.5) -> None:
        super().__init__(inner)
        self.gamma = nn.Parameter(torch.logit(torch.tensor(share)))

    @classmethod
    @override
    def for_channels(cls, make_inner: Callable[[int], LipschitzLayer], channels: int, share: float) -> Self:
        return cls(make_inner(channels), share)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.inner(x), torch.sigmoid(self.gamma))

    @override
    def described_tensors(self) -> Description:
        """Describe (s, tensors of A)."""
        return Scalar(_sigmoid, self.gamma), self.inner.described_tensors()

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        share, inner = tensors
        y, vjp = self.inner.value_and_vjp(x, inner, dtype)
        return torch.lerp(x, y, share), lambda v: torch.lerp(v, vjp(v.clone()), share)

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        share, inner = tensors
        y, inner_pullback = self.inner.jvp_and_pullback(z, inner)

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_share = (u * (y - z)).sum() if share.requires_grad else None
            of_z, of_inner = inner_pullback(share * u)
            return torch.addcmul(u + of_z, u, share, value=-1), (of_share, of_inner)

        return torch.lerp(z, y, share), pullback

    @override
    def share(self) -> float:
        return float(torch.sigmoid(self.gamma.detach().cpu().double()))

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        """Return (1 - s) + s Lip(A)."""
        return (1 - self.share()) + self.share() * self.inner.lipschitz_bound(n_tokens)


def _sigmoid(gamma: Tensor) -> tuple[Tensor]:
    return (torch.sigmoid(gamma),)


class Concatenation(Join):
    """x -> [cos(a) x ; sin(a) A(x)] along the channels, a learnt: Lip^2 <= cos(a)^2 + sin(a)^2 Lip(A)^2.

    At equal weight both x and A(x) keep 0.71 of their size, where a convex share leaves 0.5; the price is a next layer
    of twice the input channels (Proposition 6b).

    Args:
        inner: the map A from (B, C, ...) to (B, D, ...).
        share: sin(a)^2 at the start, in (0, 1).
    """

    widening = 2

    def __init__(self, inner: LipschitzLayer, share: float = 0.5) -> None:
        super().__init__(inner)
        self.angle = nn.Parameter(torch.tensor(share).sqrt().asin())

    @classmethod
    @override
    def for_channels(cls, make_inner: Callable[[int], LipschitzLayer], channels: int, share: float) -> Self:
        return cls(make_inner(channels), share)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to (B, C + D, ...)."""
        return torch.cat([self.angle.cos() * x, self.angle.sin() * self.inner(x)], 1)

    @override
    def described_tensors(self) -> Description:
        """Describe (cos(a), sin(a), tensors of A)."""
        cos, sin = (Scalar(_cos_and_sin, self.angle, index) for index in range(2))
        return cos, sin, self.inner.described_tensors()

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        cos, sin, inner = tensors
        y, vjp = self.inner.value_and_vjp(x, inner, dtype)
        channels = x.shape[1]
        return torch.cat([cos * x, sin * y], 1), lambda v: cos * v[:, :channels] + vjp(sin * v[:, channels:])

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        cos, sin, inner = tensors
        y, inner_pullback = self.inner.jvp_and_pullback(z, inner)

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_passed, of_attended = u.split([z.shape[1], y.shape[1]], 1)
            of_cos = (of_passed * z).sum() if cos.requires_grad else None
            of_sin = (of_attended * y).sum() if sin.requires_grad else None
            of_z, of_inner = inner_pullback(sin * of_attended)
            return torch.addcmul(of_z, of_passed, cos), (of_cos, of_sin, of_inner)

        return torch.cat([cos * z, sin * y], 1), pullback

    @override
    def share(self) -> float:
        """Return sin(a)^2."""
        return float(self.angle.detach().cpu().double().sin().square())

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        """Return sqrt(cos(a)^2 + sin(a)^2 Lip(A)^2)."""
        return float((1 - self.share() + self.share() * self.inner.lipschitz_bound(n_tokens) ** 2) ** 0.5)


def _cos_and_sin(angle: Tensor) -> tuple[Tensor, Tensor]:
    return angle.cos(), angle.sin()


class ChannelSplit(Join):
    """[x_1 ; x_2] -> [x_1 ; A(x_2)]: attention has channels of its own, so Lip <= max(1, Lip(A)) (Proposition 6c).

    Neither x_1 nor A(x_2) is scaled down; the price is that each has fewer channels. The share of the channels is not
    learnt: the layers before and after learn what to send through A.

    Args:
        inner: the map A of the last channels, which keeps the shape.
        passed: number of channels x_1 that pass unchanged.
        attended: number of channels x_2.
    """

    def __init__(self, inner: LipschitzLayer, passed: int, attended: int) -> None:
        super().__init__(inner)
        self.passed, self.attended = passed, attended

    @classmethod
    @override
    def for_channels(cls, make_inner: Callable[[int], LipschitzLayer], channels: int, share: float) -> Self:
        """Build the layer with the number of channels x_2 that is nearest to `share` of all, at least one."""
        attended = max(1, round(share * channels))
        return cls(make_inner(attended), channels - attended, attended)

    @override
    def forward(self, x: Tensor) -> Tensor:
        passed, attended = self._split(x)
        return torch.cat([passed, self.inner(attended)], 1)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([self.passed, self.attended], 1)

    @override
    def described_tensors(self) -> Description:
        return self.inner.described_tensors()

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        passed, attended = self._split(x)
        y, inner_vjp = self.inner.value_and_vjp(attended, tensors, dtype)

        def vjp(v: Tensor) -> Tensor:
            of_passed, of_attended = self._split(v)
            return torch.cat([of_passed, inner_vjp(of_attended)], 1)

        return torch.cat([passed, y], 1), vjp

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        passed, attended = self._split(z)
        y, inner_pullback = self.inner.jvp_and_pullback(attended, tensors)

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_passed, of_y = self._split(u)
            of_attended, of_inner = inner_pullback(of_y.contiguous())
            return torch.cat([of_passed, of_attended], 1), of_inner

        return torch.cat([passed, y], 1), pullback

    @override
    def share(self) -> float:
        """Return the number of channels x_2 over that of all channels."""
        return self.attended / (self.attended + self.passed)

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        """Return max(1, Lip(A)), or NaN where Lip(A) is NaN."""
        inner = self.inner.lipschitz_bound(n_tokens)
        return 1.0 if inner <= 1 else inner
