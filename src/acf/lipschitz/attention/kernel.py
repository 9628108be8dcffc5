"""Attention P V with P a normalised exp(Q K^T + B), whose derivatives are known in closed form."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad
from typing_extensions import override

from acf.lipschitz.attention.self_attention import (
    SelfAttention,
    merge_heads,
    merge_projections,
    split_heads,
    split_projections,
    to_maps,
    to_tokens,
)
from acf.lipschitz.effective import Described, Description
from acf.lipschitz.kernels.mixing import mix_value_and_jvp, mix_value_and_vjp, mixing_weights
from acf.lipschitz.layer import VJP, Pullback, Tensors

FeaturesVJP: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
"""Cotangents of Q, K and V (B, heads, N, d) -> that of the projections (projections, B, heads, N, d)."""


class KernelSelfAttention(SelfAttention, Described):
    """The core of a head is P V with P the normalised exp(Q K^T + B).

    `features` makes Q, K, V of the projections, and `bias` is B, zero by default.

    Attributes:
        limit: None where the rows of P are a softmax; where P is doubly stochastic, a bound of |Q K^T + B|.
    """

    limit: float | None = None

    @abstractmethod
    def features(self, projected: Sequence[Tensor], scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the Q, K, V of P V, with all scales and constants of the attention multiplied in.

        The map from the projections to P V must be 1-Lipschitz in all of them jointly.

        Args:
            projected: `projections` tensors (B, heads, N, d).
            scales: the tensors of `scales`.

        Returns:
            Q and K (B, heads, N, e) with any e, and V (B, heads, N, d).
        """

    def features_and_vjp(self, projected: Tensor, scales: Sequence[Tensor]) -> tuple[Sequence[Tensor], FeaturesVJP]:
        """Return `features` without graph, and the map of cotangents of the first samples of Q, K, V to `projected`'s.

        By default they are differentiated automatically.

        Args:
            projected: (projections, B, heads, N, d).
            scales: the tensors of `scales`.
        """
        projected = projected.detach()
        with torch.enable_grad():
            projected.requires_grad_(True)
            features = self.features(projected.unbind(), scales)

        def vjp(cotangents: Sequence[Tensor]) -> Tensor:
            samples = len(cotangents[0])
            with torch.enable_grad():
                used = [f[:samples] for f in features]
            (product,) = torch.autograd.grad(used, projected, cotangents, retain_graph=True)
            return product[:, :samples]

        return [f.detach() for f in features], vjp

    def features_and_jvp(
        self, projected: Tensor, tangents: Tensor, scales: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return `features` and their derivative along `tangents`, both differentiable once; by default automatic."""
        with forward_ad.dual_level():
            features = self.features(forward_ad.make_dual(projected, tangents).unbind(), scales)
            qkv, qkv_tangents = zip(*(forward_ad.unpack_dual(f) for f in features), strict=True)
        return qkv, qkv_tangents

    def bias(self, scales: Sequence[Tensor]) -> Tensor | None:
        """Return B (heads, N, N), the same for all inputs, or None for zero; differentiable in the `scales`."""
        return None

    def scales(self) -> tuple[Tensor, ...]:
        """Return the learnt parameters of the core, in the order in which the class defines them."""
        return tuple(self.parameters(recurse=False))

    @override
    def weights_and_values(self, *projected: Tensor, heads: slice = slice(None)) -> tuple[Tensor, Tensor]:
        scales = self.scales()
        q, k, v = (feature[:, heads] for feature in self.features(projected, scales))
        bias = self.bias(scales)
        return mixing_weights(q, k, self.limit, None if bias is None else bias[heads]), v

    @override
    def described_tensors(self) -> Description:
        """Describe (tensors of `project`, scales, tensors of `output`)."""
        return self.project.described_tensors(), self.scales(), self.output.described_tensors()

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        project_tensors, scales, output_tensors = tensors
        window = self.window_of(x)
        flat, project_vjp = self.project.value_and_vjp(self.tokens_of(x), project_tensors, dtype)
        projected = split_projections(flat, self.projections, self.heads)
        self._match_scales_once(projected)
        features, features_vjp = self.features_and_vjp(projected, scales)
        y, core_vjp = mix_value_and_vjp(self.limit, self.bias(scales), *features)
        value, output_vjp = self.output.value_and_vjp(merge_heads(y), output_tensors, dtype)

        def vjp(v: Tensor) -> Tensor:
            shape = v.shape
            cotangents = core_vjp(split_heads(output_vjp(to_tokens(v, window)), self.heads))
            return to_maps(project_vjp(merge_projections(features_vjp(cotangents))), shape, window)

        return to_maps(value, x.shape, window), vjp

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        project_tensors, scales, output_tensors = tensors
        window = self.window_of(z)
        flat, project_pullback = self.project.jvp_and_pullback(self.tokens_of(z), project_tensors)
        halves = (split_projections(half, self.projections, self.heads) for half in flat.chunk(2))
        projected, tangents = (half.detach().requires_grad_(True) for half in halves)
        self._match_scales_once(projected)
        used_scales = [scale.detach().requires_grad_(scale.requires_grad) for scale in scales]
        with torch.enable_grad():
            qkv, qkv_tangents = self.features_and_jvp(projected, tangents, used_scales)
            bias = self.bias(used_scales)
            mixed = merge_heads(torch.cat(mix_value_and_jvp(self.limit, bias, *qkv, *qkv_tangents)))
        output, output_pullback = self.output.jvp_and_pullback(mixed.detach(), output_tensors)

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_mixed, of_output = output_pullback(to_tokens(u, window))
            wanted = [scale.requires_grad for scale in scales]
            inputs = [projected, tangents, *itertools.compress(used_scales, wanted)]
            halves = torch.autograd.grad(mixed, inputs, of_mixed, retain_graph=True, materialize_grads=True)
            of_scales = iter(halves[2:])
            of_tokens, of_project = project_pullback(merge_projections(torch.cat(halves[:2], 1)))
            of_core = tuple(next(of_scales) if is_wanted else None for is_wanted in wanted)
            return to_maps(of_tokens, z.shape, window), (of_project, of_core, of_output)

        return to_maps(output, z.shape, window), pullback

    @override
    def intermediate_values(self, positions: int) -> int:
        """Return the number of values of P in all heads, or of all projections if these are more."""
        together = positions if self.window is None else min(positions, self.window**2)
        return self.heads * positions * max(together, self.projections * self.head_width)
