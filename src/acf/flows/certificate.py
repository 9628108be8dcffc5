"""The proof of contraction of each block, computed from the stored weights."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch

from acf.errors import NotContractiveError
from acf.flows.contractive import ContractiveBlock
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised import Normalised

Blocks: TypeAlias = Mapping[str, ContractiveBlock]
"""Contractive blocks by their names, as `Flow.contractive_blocks` returns them."""

# The bound that `tighten_blocks` aims at: the inverse converges, and its errors are at most 1 / (1 - 0.99) residuals.
TARGET = 0.99
# The search for the least tightening aims at the target times this factor, and stops within its square.
AIM = 1 - 1e-4


@dataclass(frozen=True)
class BlockCertificate:
    """Proven upper bound of the l2 Lipschitz constant of one block's branch."""

    name: str
    upper: float


@dataclass(frozen=True)
class Certificate:
    """Certificates of all contractive blocks, in the order of the flow."""

    blocks: tuple[BlockCertificate, ...]

    @property
    def worst(self) -> float:
        """Largest of the bounds; 0 for a flow without such blocks."""
        return max((block.upper for block in self.blocks), default=0.0)

    @property
    def worst_block(self) -> str | None:
        """Name of the block with the largest bound."""
        return max(self.blocks, key=lambda block: block.upper).name if self.blocks else None

    def as_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON-able values."""
        return {
            "worst": self.worst,
            "worst_block": self.worst_block,
            "blocks": [asdict(b) for b in self.blocks],
        }

    def require(self) -> None:
        """Check that every bound is below 1.

        Raises:
            NotContractiveError: names the first block that is not proven contractive.
        """
        for block in self.blocks:
            _require(block.name, block.upper)


def _require(name: str, upper: float) -> None:
    if not upper < 1:
        raise NotContractiveError(
            f"block {name} is not proven contractive: the bound of its branch's Lipschitz constant is {upper:.4f}, "
            "not below 1, so the flow may not be invertible; after training, acf.tighten(flow) closes the gap between "
            "the estimated norms and the proven ones"
        )


def certify_blocks(blocks: Blocks) -> Certificate:
    """Bound the Lipschitz constant of every block's branch from the present weights, in float64.

    A convolution is bounded by its norm on small maps and by the norm on a torus otherwise (Proposition 7), a matrix by
    its largest singular value, an activation by its largest slope, attention by its theorem. The bound of each linear
    map contains a factor 1 + 1e-4 for the rounding of float32. docs/mathematics.md has the statements and proofs. Warns
    if blocks on CUDA would compute in TF32, whose rounding is larger than that factor.
    """
    _warn_of_tf32(blocks)
    return Certificate(tuple(BlockCertificate(name, block.lipschitz_bound()) for name, block in blocks.items()))


def _warn_of_tf32(blocks: Blocks) -> None:
    single = any(p.is_cuda and p.dtype == torch.float32 for block in blocks.values() for p in block.parameters())
    if single and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32):
        warnings.warn(
            "TF32 is on, and rounds by more than the certificate allows for: set torch.backends.cudnn.allow_tf32 and "
            "torch.backends.cuda.matmul.allow_tf32 to False",
            stacklevel=4,
        )


def require_proven(blocks: Blocks) -> None:
    """Check that every block is proven contractive; bounds are computed anew only for weights that have changed.

    Raises:
        NotContractiveError: names the first block that is not proven contractive.
    """
    for name, block in blocks.items():
        _require(name, block.cached_lipschitz_bound())


def tighten_blocks(blocks: Blocks, target: float = TARGET, max_factor: float = 1.3) -> Certificate:
    """Scale weights down as far as the proofs of contraction need, and return the certificate.

    Training normalises by power iteration, a lower estimate of each norm. This function first iterates to convergence.
    Then it raises the `slack` of a branch's linear maps, each in proportion to the logarithm of its own gap between
    proven bound and estimate, until the product of all bounds is at most `target`. Branches below `target` are left
    as they are. Where all gaps together do not suffice, because the product of the coefficients is above `target`, the
    bound stays above it, and is accepted if it is below 1: what is proven contractive is never refused.

    Args:
        blocks: changed in place (buffers only).
        target: bound to reach, below 1.
        max_factor: largest allowed ratio of a bound of 1 or more to `target`; a larger one means that norms are wrong.

    Raises:
        NotContractiveError: a branch is not proven contractive and needs more than `max_factor`, or cannot be proven
            contractive, and the message names its worst layer or what to do; or it has values that are not finite.
    """
    for name, block in blocks.items():
        maps = {key: m for key, m in block.branch.named_modules() if isinstance(m, Normalised)}
        _require_finite(name, block)
        for layer in maps.values():
            layer.slack.fill_(1.0)
            layer.converge_norm()
        _tighten_block(name, block, maps, target, max_factor)
    return certify_blocks(blocks)


def _require_finite(name: str, block: ContractiveBlock) -> None:
    for key, tensor in block.branch.state_dict().items():
        if not tensor.isfinite().all():
            raise NotContractiveError(f"block {name}: {key} has values that are not finite")


def _tighten_block(
    name: str, block: ContractiveBlock, maps: dict[str, Normalised], target: float, max_factor: float
) -> None:
    start = block.lipschitz_bound()
    if start <= target:
        return
    if start >= max(1.0, target * max_factor):
        raise NotContractiveError(
            f"block {name} is not contractive: the bound of its branch's Lipschitz constant is {start:.4f}; "
            f"its worst layer is {_worst_layer(block)}"
        )
    # slack = gap^t closes a share t of each gap; at t = 1 no norm is above its coefficient. The logarithm of a product
    # is nearly linear in t, so the first false position is nearly right; every bound costs the norms of all layers.
    gaps = {key: _gap(layer) for key, layer in maps.items()}
    low, high = (0.0, start), (1.0, _bound_at(1.0, block, maps, gaps))
    for _ in range(3):
        if not low[1] > target > high[1] > 0:
            break
        share = low[0] + (high[0] - low[0]) * math.log(low[1] / (target * AIM)) / math.log(low[1] / high[1])
        point = (min(share, high[0]), _bound_at(min(share, high[0]), block, maps, gaps))
        low, high = (low, point) if point[1] <= target else (point, high)
        if high[1] >= target * AIM**2:
            break
    reached = _bound_at(high[0], block, maps, gaps)
    if not reached < 1:
        raise NotContractiveError(
            f"block {name} cannot be proven contractive: with every layer's proven norm at its coefficient the bound "
            f"is {reached:.4f}; lower model.coefficient"
        )


def _worst_layer(block: ContractiveBlock) -> str:
    tokens = block.shape[1] * block.shape[2]
    bounds = {
        f"{key} ({type(layer).__name__})": layer.lipschitz_bound(tokens)
        for key, layer in block.branch.named_children()
        if isinstance(layer, LipschitzLayer)
    }
    worst = max(bounds, key=lambda key: bounds[key])
    return f"{worst} with bound {bounds[worst]:.4f}"


def _gap(layer: Normalised) -> float:
    """Proven bound over estimate, both of the stored weight, at least 1."""
    estimate = float(layer.estimated_norm().detach())
    return max(1.0, layer.stored_norm_bound() / max(estimate, torch.finfo(layer.weight.dtype).tiny))


def _bound_at(share: float, block: ContractiveBlock, maps: dict[str, Normalised], gaps: dict[str, float]) -> float:
    for key, layer in maps.items():
        layer.slack.fill_(gaps[key] ** share)
    return block.lipschitz_bound()
