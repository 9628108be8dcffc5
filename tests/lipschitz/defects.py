"""Layers with a mistake each, that claim the bound of the layer they imitate; the attack must find them out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acf.lipschitz import (
    DotProductSelfAttention,
    L2SelfAttention,
    dot_attention_constant,
    l2_attention_constant,
)
from acf.lipschitz.layer import LipschitzLayer


class PublishedResidual(LipschitzLayer):
    """x + gamma A(x), taken for a map of norm 1."""

    def __init__(self, inner: nn.Module, gamma: float = 0.5) -> None:
        super().__init__()
        self.inner, self.gamma = inner, nn.Parameter(torch.tensor(gamma))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.inner(x)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1.0


class HonestResidual(PublishedResidual):
    """The same map with the bound it has, for the tests of the certificate."""

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1 + abs(float(self.gamma.detach())) * self.inner.lipschitz_bound(n_tokens)


class WeightNorms(DotProductSelfAttention):
    """The scale from the norms of the weights instead of the activations: logits grow with the square of the input."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        a, b, c = (torch.linalg.matrix_norm(w, 2) for w in self.project.effective_weight().chunk(3))
        scale = torch.maximum(torch.maximum(a * b, a * c), b * c)
        return torch.softmax(q @ k.mT / scale, -1) @ v / dot_attention_constant(q.shape[-2])


class FrozenScale(DotProductSelfAttention):
    """The scale of standard normal tokens, taken once, for all inputs."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        return torch.softmax(q @ k.mT / q.shape[-2] ** 0.5, -1) @ v / dot_attention_constant(q.shape[-2])


class MissingRoots(DotProductSelfAttention):
    """The square roots of the norms forgotten: the smaller the input, the sharper the softmax."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        scale = _scale(*(t.square().sum(-1, keepdim=True) for t in projected))
        return torch.softmax(q @ k.mT / scale.clamp_min(1e-6), -1) @ v / dot_attention_constant(q.shape[-2])


class DetachedScale(DotProductSelfAttention):
    """The same values, but autograd is not told that the scale depends on the input: log-determinants go wrong."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        scale = _scale(*(t.square().sum(-1, keepdim=True) for t in projected), power=0.5)
        return torch.softmax(q @ k.mT / scale.detach(), -1) @ v / dot_attention_constant(q.shape[-2])


class UntiedKeys(L2SelfAttention):
    """L2 attention with keys that are not the queries, under the constant of tied ones."""

    def core(self, *projected: Tensor) -> Tensor:
        (q,) = projected
        return torch.softmax(self._logits(q, q.flip(-1)), -1) @ q / l2_attention_constant(q.shape[-2])

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        return self.log_bandwidth.exp() * (2 * q @ k.mT - k.square().sum(-1).unsqueeze(-2))


class SoftmaxOverQueries(UntiedKeys):
    """Each column of the weights sums to 1, not each row."""

    def core(self, *projected: Tensor) -> Tensor:
        (q,) = projected
        return torch.softmax(self._logits(q, q), -2) @ q / l2_attention_constant(q.shape[-2])


class TransposedWeights(UntiedKeys):
    """P^T Q in place of P Q: an output is no mean of tokens, so it depends on where the origin is."""

    def core(self, *projected: Tensor) -> Tensor:
        (q,) = projected
        return torch.softmax(self._logits(q, q), -1).mT @ q / l2_attention_constant(q.shape[-2])


class ReshapedTokens(L2SelfAttention):
    """(B, C, H, W) reshaped to tokens (B, H * W, C), where a transpose belongs, and back.

    A permutation of the values before and its inverse after: the bound holds, but tokens are no longer positions.
    """

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        misread = x.reshape(batch, height * width, channels).mT.reshape(x.shape)
        return super().forward(misread).flatten(2).mT.reshape(x.shape)


class ReshapedConv(nn.Conv2d, LipschitzLayer):
    """Convolution divided by five steps of power iteration on the kernel reshaped to a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.98 / five_steps(self.weight.flatten(1)), self.bias, padding=self.padding)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 0.98


class FiveSteps(nn.Linear, LipschitzLayer):
    """Dense layer divided by five steps of power iteration, always from the same vector."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.98 / five_steps(self.weight), self.bias)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 0.98


def five_steps(matrix: Tensor) -> Tensor:
    """Estimate the spectral norm, always from below."""
    u = torch.ones(len(matrix), dtype=matrix.dtype)
    for _ in range(5):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return u @ matrix @ v


def _scale(q: Tensor, k: Tensor, v: Tensor, power: float = 1.0) -> Tensor:
    """The normaliser from squared norms of the tokens (..., N, 1), each raised to `power`."""
    u = q.sum(-2, keepdim=True) ** power
    longest_key, longest_value = (t.amax(-2, keepdim=True) ** power for t in (k, v))
    return torch.maximum(torch.maximum(u * longest_key, u * longest_value), longest_key * longest_value)
