"""Attention P V with P a normalised exp(Q K^T), whose derivatives are known in closed form."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from acf.lipschitz.attention.self_attention import SelfAttention, maps, merge_heads, tokens
from acf.lipschitz.kernels.mixing import mix, mix_value_and_jvp, mix_value_and_vjp
from acf.lipschitz.layer import VJP, Tensors


class KernelSelfAttention(SelfAttention):
    """The core of a head is P V with P the normalised exp(Q K^T), for Q, K, V that `features` makes of the projections.

    Attributes:
        balanced: whether P is doubly stochastic; otherwise its rows are a softmax.
    """

    balanced = False

    @abstractmethod
    def features(self, projected: Sequence[Tensor], scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K, V of P V from the projections, each (B, heads, N, d), with all scales and constants within.

        The map from the projections to P V must be 1-Lipschitz in all of them jointly.
        """

    def scales(self) -> tuple[Tensor, ...]:
        """Learnt tensors of the core beside the projections."""
        return tuple(self.parameters(recurse=False))

    def core(self, *projected: Tensor) -> Tensor:
        """Attend: each argument and the result (B, heads, N, d); in each head 1-Lipschitz in all arguments jointly."""
        return mix(*self.features(projected, self.scales()), self.balanced)

    def effective_tensors(self) -> Tensors:
        """Tensors of both projections, and the scales."""
        return self.project.effective_tensors(), self.scales(), self.output.effective_tensors()

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and its products in closed form but for the features, which are differentiated automatically."""
        project, scales, output = tensors
        projected, pull_project = self.project.value_and_vjp(tokens(x), project, dtype)
        stacked = self._split(projected).detach()
        self._start_scales(stacked)
        with torch.enable_grad():
            stacked.requires_grad_(True)
            features = self.features(stacked.unbind(), scales)
        y, pull_core = mix_value_and_vjp(self.balanced, *(f.detach() for f in features))
        value, pull_output = self.output.value_and_vjp(merge_heads(y), output, dtype)

        def pull(v: Tensor) -> Tensor:
            samples, shape = len(v), v.shape
            cotangents = pull_core(_heads(pull_output(tokens(v)), self.heads))
            with torch.enable_grad():
                used = [f[:samples] for f in features]
            (pulled,) = torch.autograd.grad(used, stacked, cotangents, retain_graph=True)
            return maps(pull_project(_stack(pulled[:, :samples])), shape)

        return maps(value, x.shape), pull

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        project, scales, output = tensors
        stacked, moved = (self._split(half) for half in self.project.value_and_jvp(tokens(z), project).chunk(2))
        self._start_scales(stacked)
        with forward_ad.dual_level():
            features = self.features(forward_ad.make_dual(stacked, moved).unbind(), scales)
            values, tangents = zip(*(forward_ad.unpack_dual(f) for f in features), strict=True)
        mixed = torch.cat(mix_value_and_jvp(self.balanced, *values, *tangents))
        return maps(self.output.value_and_jvp(merge_heads(mixed), output), z.shape)

    def intermediate_values(self, positions: int) -> int:
        """Weights of all heads, or all projections."""
        return self.heads * max(positions**2, self.projections * self.head_width * positions)


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _stack(stacked: Tensor) -> Tensor:
    """(projections, B, heads, N, d) -> (B, N, projections * heads * d)."""
    return stacked.permute(1, 3, 0, 2, 4).flatten(2)
