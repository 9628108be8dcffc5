"""Checks of a flow's certificate, and measures of what its attention does, for each contractive block.

The proven bound of a block's Lipschitz constant is set against the largest norms of its Jacobian that a search finds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import DataError, TrainingError
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.block_inputs import watching
from acf.evaluation.likelihood import check_images, dequantise
from acf.flows.flow import Flow, certify
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.bounds.attack import jacobian_norm, largest_gain, power_norm
from acf.lipschitz.join import Join
from acf.lipschitz.layer import LipschitzLayer
from acf.settings.analysis_config import AuditConfig

# Number of inputs that ascend, or whose gains are measured, at a time. Attention on 784 tokens keeps GiB for the
# derivatives of so many.
BATCH = 16
# Gains on maps of few tokens are measured for more inputs at a time, which takes the same time per operation.
LARGE_BATCH = 128
# Jacobians of maps of up to this many values are formed whole, which takes a copy of the input for each of their rows.
EXACT_INPUTS = 256
# On maps of more than ALL_TOKENS tokens, dependence is measured at SOME_TOKENS random ones only, because each costs an
# evaluation of the attention.
ALL_TOKENS, SOME_TOKENS = 64, 16


@dataclass(frozen=True)
class BlockAudit:
    """The audit of one contractive block with the branch g, with l2 norms.

    Attributes:
        name: as in `Flow.contractive_blocks`.
        tokens: number of positions H W of the block's maps.
        upper: proven upper bound of Lip(g).
        local: largest norm of g's Jacobian at the activations of the given images.
        found: largest norm of g's Jacobian that was found, at those activations or by gradient ascent from them and
            from the inputs that an attack starts from by itself (`acf.lipschitz.bounds.attack`).
        ratio: found / upper; above 1 the bound is refuted.
        attention: name of the class of the attention within g. It is None if there is no attention, and then so are
            the following three.
        share: learnt share of attention (`Join.share`); None for attention in a block of its own.
        weight: part of the joined features' spread that is due to attention (`attention_weight`); None for attention
            in a block of its own, and if the joined features are constant.
        dependence: dependence of the attention's output on other tokens (`token_dependence`); None if the output is
            constant.
    """

    name: str
    tokens: int
    upper: float
    local: float
    found: float
    ratio: float
    attention: str | None
    share: float | None
    weight: float | None
    dependence: float | None


def audit(flow: Flow, analysed: Analysed, config: AuditConfig) -> Found:
    """Set the proven bound of every block against the largest norm that an attack finds.

    It is computed in float64, on the CPU where the flow's device has none (MPS).

    Returns:
        `images`: how many. `blocks`: `BlockAudit` of each. If one has a gain above its bound, the analysis says so, and
        its stage ends with an error after the file is written.
    """
    images = analysed.test[: config.images]
    if next(flow.parameters()).device.type == "mps":
        flow = copy.deepcopy(flow).cpu()
    blocks = audit_blocks(flow, images, steps=config.steps, seed=config.seed)
    return Found({"images": len(images), "blocks": [asdict(block) for block in blocks]}, refuted=_refuted(blocks))


def audit_blocks(flow: Flow, images: Tensor, *, steps: int, seed: int = 0) -> list[BlockAudit]:
    """Audit every contractive block of `flow`, in float64 on a copy, in the order of the flow.

    Args:
        flow: in any mode, on a device that has float64; it is not changed.
        images: uint8 (B, C, H, W), at least two.
        steps: number of steps of gradient ascent in each of an attack's two ascents.
        seed: of dequantisation, attack and the choice of tokens.

    Raises:
        DataError: the images have the wrong type, shape or range, or there are fewer than two.
        NotContractiveError: a bound is not below 1; names the block.
        TrainingError: a block's derivative at the images is not finite; names the block.
    """
    check_images(flow, images)
    if len(images) < 2:
        raise DataError(f"an audit compares images with each other and needs at least two, got {len(images)}")
    certificate = certify(flow)
    certificate.require()
    copied = copy.deepcopy(flow).double().eval().requires_grad_(False)
    branches = {name: block.branch for name, block in copied.contractive_blocks().items()}
    watched = [m for branch in branches.values() for m in (branch, *_within(branch, (SelfAttention, Join)))]
    x = dequantise(images.cpu(), flow.config.grey_levels, torch.Generator("cpu").manual_seed(seed), torch.float64)
    activations = _inputs(copied, x, watched)
    return [
        _audit_block(block.name, branches[block.name], block.upper, activations, steps, seed)
        for block in certificate.blocks
    ]


def _audit_block(
    name: str, branch: nn.Module, upper: float, activations: dict[nn.Module, Tensor], steps: int, seed: int
) -> BlockAudit:
    x = activations[branch]
    gains = _gains(branch, x, seed)
    if not bool(gains.isfinite().all()):
        raise TrainingError(f"block {name}: its derivative at test images is not finite; train the model again")
    best = x[gains.argsort(descending=True)[:BATCH]]
    shape = tuple(x.shape[1:])
    attack = largest_gain(
        branch,
        shape,
        inputs=best,
        steps=steps,
        rounds=1,
        seed=seed,
        candidates=BATCH,
        batch=LARGE_BATCH if math.prod(shape[1:]) <= ALL_TOKENS else BATCH,
        exact_inputs=EXACT_INPUTS,
    )
    local = float(gains.max())
    found = max(local, attack.gain)
    attention = next(iter(_within(branch, SelfAttention)), None)
    # Layers of a dense branch are joins too, of convolutions.
    join = next((m for m in _within(branch, Join) if isinstance(m.inner, SelfAttention)), None)
    return BlockAudit(
        name=name,
        tokens=math.prod(shape[1:]),
        upper=upper,
        local=local,
        found=found,
        ratio=found / max(upper, 1e-300),  # a bound of 0 is right for a constant branch, and refuted by any gain
        attention=None if attention is None else type(attention).__name__,
        share=None if join is None else join.share(),
        weight=None if join is None else attention_weight(join, activations[join]),
        dependence=None if attention is None else token_dependence(attention, activations[attention], seed),
    )


def _gains(branch: nn.Module, x: Tensor, seed: int) -> Tensor:
    """Return the norm of the Jacobian at each of x (B, ...): exact on small maps, by power iteration on others."""
    if x[0].numel() <= EXACT_INPUTS:
        return jacobian_norm(branch, x)
    return torch.cat([power_norm(branch, part, seed=seed) for part in x.split(BATCH)])


class _Zero(LipschitzLayer):
    """The map A(x) = 0, which takes the place of attention."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        return 0.0


@torch.no_grad()
def attention_weight(join: Join, x: Tensor) -> float | None:
    """Return std(y - y_0) / (std(y_0) + std(y - y_0)), where y = join(x) and y_0 is join(x) with attention A(x) = 0.

    std is the root mean square l2 distance of a token from the mean over all tokens of all images. For a convex share s
    the formula is s std(A) / ((1 - s) std(x) + s std(A)).

    Args:
        join: the join of features with attention; it is not changed.
        x: features (B, C, H, W).

    Returns:
        A number from 0 to 1; None if both y_0 and y - y_0 are constant.
    """
    without = copy.deepcopy(join)
    without.inner = _Zero()
    joined = torch.cat([join(part) for part in x.split(BATCH)])
    features = without(x)
    kept, mixed = math.sqrt(_variance(features)), math.sqrt(_variance(joined - features))
    return mixed / (kept + mixed) if kept + mixed > 0 else None


@torch.no_grad()
def token_dependence(attention: nn.Module, x: Tensor, seed: int = 0) -> float | None:
    """Return how much attention's output at a token depends on the other tokens.

    This is sqrt( mean |A(x)_i - A(x')_i|^2 / (2 mean |A(x)_i - mean A|^2) ), where x' has token i of x and all other
    tokens from another image. The numerator is the mean squared change of the output at i; the denominator is the mean
    squared difference between the outputs at two tokens drawn at random. So the value is 0 if the output depends on
    token i alone, and about 1 if it depends on the other tokens alone.

    Args:
        attention: A, a map (B, C, H, W) -> (B, C, H, W) that treats the B samples independently.
        x: features (B, C, H, W), B >= 2. The means are over all images and tokens i; on maps of more than 64 tokens the
            numerator's is over 16 random tokens of each image.
        seed: of the pairs of images and the choice of tokens.

    Returns:
        The dependence; None if A is constant on x, up to rounding.
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(x), generator=draw, device="cpu")
    other = torch.empty_like(order).scatter_(0, order, order.roll(1))  # no image is its own partner
    tokens = x.flatten(2)
    count = tokens.shape[2]
    outputs = torch.cat([attention(part) for part in x.split(BATCH)]).flatten(2)
    changes = []
    for image in range(len(x)):
        some = torch.arange(count, device="cpu")
        if count > ALL_TOKENS:
            some = torch.randperm(count, generator=draw, device="cpu")[:SOME_TOKENS]
        rows = torch.arange(len(some), device="cpu")
        mixed = tokens[other[image]].repeat(len(some), 1, 1)
        mixed[rows, :, some] = tokens[image][:, some].T
        changed = attention(mixed.view(-1, *x.shape[1:])).flatten(2)[rows, :, some]
        changes.append((changed - outputs[image][:, some].T).square().sum(1))
    spread = _variance(outputs)
    rounding = (100 * torch.finfo(x.dtype).eps) ** 2 * float(outputs.square().sum(1).mean())
    return math.sqrt(float(torch.cat(changes).mean()) / (2 * spread)) if spread > rounding else None


def _variance(x: Tensor) -> float:
    """Return the mean squared distance of the tokens of x (B, C, ...) from their mean over images and positions."""
    tokens = x.flatten(2).transpose(1, 2).flatten(0, 1)
    return float((tokens - tokens.mean(0)).square().sum(1).mean())


def _within(module: nn.Module, kind: type | tuple[type, ...]) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, kind)]


@torch.no_grad()
def _inputs(flow: Flow, x: Tensor, modules: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
    """Return the input of each of `modules` while the flow transforms x (B, C, H, W)."""
    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
    with watching(modules, lambda module, maps: seen[module].append(maps)):
        for part in x.split(BATCH):
            flow.transform(part.to(next(flow.parameters()).device))
    return {module: torch.cat(parts) for module, parts in seen.items()}


def _refuted(blocks: Sequence[BlockAudit]) -> str:
    found = [
        f"block {block.name} (a gain of {block.found:.4f} where {block.upper:.4f} is proven)"
        for block in blocks
        if not block.ratio <= 1
    ]
    if not found:
        return ""
    return (
        f"a proven bound is refuted: {'; '.join(found)}; lipschitz_bound of a layer in that branch is wrong, do not "
        "trust this flow's inverses"
    )
