"""Layers that take feature maps in either layout, maps or rows of channels, so that no copies are made between them."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.kernels.layout import in_layout
from acf.lipschitz.layer import VJP, LipschitzLayer, Pullback, Tensors


class EitherLayout(LipschitzLayer):
    """Base of layers whose derivatives take x as maps or as rows (`acf.lipschitz.kernels.layout`)."""

    @abstractmethod
    def value_and_vjp_in(
        self, x: Tensor, rows: bool, size: Sequence[int], tensors: Tensors, dtype: torch.dtype
    ) -> tuple[Tensor, bool, VJP]:
        """Return `value_and_vjp` for x in either layout, without changing it.

        Args:
            x: maps, or rows.
            rows: whether x is rows.
            size: (H, W) of the maps.
            tensors: as for `value_and_vjp`.
            dtype: as for `value_and_vjp`.

        Returns:
            The value, whether it is rows, and the vjp, from cotangents in the value's layout to those in x's.
        """

    @abstractmethod
    def jvp_and_pullback_in(
        self, z: Tensor, rows: bool, size: Sequence[int], tensors: Tensors
    ) -> tuple[Tensor, bool, Pullback]:
        """Return `jvp_and_pullback` for z in either layout, as `value_and_vjp_in` does."""

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        size = x.shape[2:]
        y, rows, vjp = self.value_and_vjp_in(x, False, size, tensors, dtype)
        return in_layout(y, rows, False, size), lambda v: vjp(in_layout(v, False, rows, size))

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        size = z.shape[2:]
        y, rows, pullback = self.jvp_and_pullback_in(z, False, size, tensors)
        return in_layout(y, rows, False, size), lambda u: pullback(in_layout(u, False, rows, size))
