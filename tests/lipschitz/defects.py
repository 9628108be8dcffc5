"""Layers with a mistake each, that claim the bound of the layer they imitate; the tests must find them out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acf.lipschitz import DotProductSelfAttention, L2SelfAttention


class PublishedResidual(nn.Module):
    """x + gamma A(x), taken for a map of norm 1."""

    claim = 1.0

    def __init__(self, inner: nn.Module, gamma: float = 0.5) -> None:
        super().__init__()
        self.inner, self.gamma = inner, nn.Parameter(torch.tensor(gamma))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.inner(x)


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
        return torch.softmax(q @ k.mT / scale, -1) @ v


class FrozenScale(DotProductSelfAttention):
    """The scale of standard normal tokens, taken once, for all inputs."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        return torch.softmax(q @ k.mT / q.shape[-2] ** 0.5, -1) @ v


class SquaredNorms(DotProductSelfAttention):
    """The square roots forgotten: the smaller the input, the sharper the softmax."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        u = q.square().sum((-1, -2), keepdim=True)
        longest = [t.square().sum(-1, keepdim=True).amax(-2, keepdim=True) for t in (k, v)]
        scale = torch.maximum(torch.maximum(u * longest[0], u * longest[1]), longest[0] * longest[1])
        return torch.softmax(q @ k.mT / scale.clamp_min(1e-6), -1) @ v


class DetachedScale(DotProductSelfAttention):
    """The same values, but autograd is not told that the scale depends on the input: log-determinants go wrong."""

    def core(self, *projected: Tensor) -> Tensor:
        q, k, v = projected
        u = q.square().sum((-1, -2), keepdim=True).sqrt()
        longest = [t.square().sum(-1, keepdim=True).amax(-2, keepdim=True).sqrt() for t in (k, v)]
        scale = torch.maximum(torch.maximum(u * longest[0], u * longest[1]), longest[0] * longest[1])
        return torch.softmax(q @ k.mT / scale.detach(), -1) @ v


class UntiedKeys(L2SelfAttention):
    """L2 attention with keys that are not the queries, under the constant of tied ones."""

    def core(self, *projected: Tensor) -> Tensor:
        (q,) = projected
        k = q.flip(-1)
        logits = 2 * q @ k.mT - k.square().sum(-1).unsqueeze(-2)
        return torch.softmax(self.log_bandwidth.exp() * logits, -1) @ q


class ReshapedConv(nn.Conv2d):
    """Convolution divided by five steps of power iteration on the kernel reshaped to a matrix."""

    claim = 0.98

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        u = torch.ones(len(matrix), dtype=matrix.dtype)
        for _ in range(5):
            v = F.normalize(matrix.T @ u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        return F.conv2d(x, self.weight * self.claim / (u @ matrix @ v), self.bias, padding=self.padding)
