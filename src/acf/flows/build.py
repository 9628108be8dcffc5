"""From a configuration to a flow."""

from collections.abc import Mapping
from typing import Any

from acf.errors import ConfigError
from acf.flows.actnorm import ActNorm
from acf.flows.bijection import Bijection, Chain
from acf.flows.classifying import ClassifyingFlow
from acf.flows.conditional import ConditionalAffine
from acf.flows.flow import Flow
from acf.flows.logit import Logit
from acf.flows.multiscale import MultiScale
from acf.flows.squeeze import Squeeze
from acf.flows.vectors import Vectors
from acf.lipschitz.branch import Branch, Shape, attention_branch, fc_branch
from acf.registry import BLOCKS, BRANCHES, resolve
from acf.settings.config import AttentionConfig, ModelConfig, model_config_from


def build(config: ModelConfig | Mapping[str, Any]) -> Flow:
    """Build the flow a configuration describes, with fresh weights from torch's global generator.

    Images pass a logit, vectors become maps of one position. Then per scale: [squeeze,] ActNorm, (contractive block,
    ActNorm) repeated; squeezes stand between scales, and before the first with `squeeze_first`; the last scale ends
    with `fc_blocks` fully connected blocks. Attention sits in every `attention.every`-th convolutional block of a scale
    with at most `attention.max_tokens` positions, or in the last alone, or follows it as a block of its own. With a
    `condition`, affine maps that depend on it stand before the first block and after each block. On vectors all kernels
    are 1, so that convolutions are fully connected layers.

    Raises:
        ConfigError: unknown key, impossible value, maps too small for the number of squeezes, or attention nowhere.
    """
    config = model_config_from(config)
    if not config.is_of_images:
        config = config.model_copy(update={"kernels": [1] * len(config.kernels)})
    shape, scales, shapes = config.map_shape, [], []
    for index, blocks in enumerate(config.blocks):
        bijections: list[Bijection] = []
        if index > 0 or config.squeeze_first:
            bijections.append(Squeeze())
            shape = _squeezed(shape, config)
        if config.actnorm:
            bijections.append(ActNorm(shape))
        if index == 0:
            bijections += _conditional(config, shape)
        for branch in _branches(config, shape, blocks, first=index == 0):
            bijections += _block(config, branch, shape)
        if index == len(config.blocks) - 1:
            for _ in range(config.fc_blocks):
                bijections += _block(config, fc_branch(config, shape), shape, per_value=True)
        scales.append(Chain(*bijections))
        shapes.append(shape)
        if config.factor_out and index < len(config.blocks) - 1:
            shape = _halved(shape)
    if config.attention.kind != "none" and not any(
        _attends(config, shape, block, blocks)
        for shape, blocks in zip(shapes, config.blocks, strict=True)
        for block in range(blocks)
    ):
        raise ConfigError(
            f"attention.every ({config.attention.every}) and attention.max_tokens ({config.attention.max_tokens}) "
            f"leave no attention in blocks {config.blocks} on maps of {', '.join(f'{h} x {w}' for _, h, w in shapes)}; "
            "change them, or set attention.kind to none"
        )
    preprocessing = Logit(config.logit_alpha) if config.is_of_images else Vectors()
    kind = Flow if config.classes is None else ClassifyingFlow
    return kind(config, preprocessing, MultiScale(list(scales), shapes, config.factor_out))


def _branches(config: ModelConfig, shape: Shape, blocks: int, first: bool) -> list[Branch]:
    """Branches of the convolutional blocks of one scale, with attention where it belongs."""
    make = resolve(BRANCHES, config.branch, "branch")
    plain = config.model_copy(update={"attention": AttentionConfig()})
    branches: list[Branch] = []
    for block in range(blocks):
        attends = _attends(config, shape, block, blocks)
        branches.append(make(config if attends else plain, shape, not first or block > 0))
        if attends and config.attention.join == "block":
            branches.append(attention_branch(config, shape))
    return branches


def _attends(config: ModelConfig, shape: Shape, block: int, blocks: int) -> bool:
    """Whether there is attention in block number `block` (from 0) of `blocks` on a scale with maps of this shape."""
    _, height, width = shape
    every = blocks if config.attention.once_per_scale else config.attention.every
    chosen = (block + 1) % every == 0 and height * width <= config.attention.max_tokens
    return chosen and config.attention.kind != "none"


def _block(config: ModelConfig, branch: Branch, shape: Shape, per_value: bool = False) -> list[Bijection]:
    make = resolve(BLOCKS, config.block, "block")
    block = make(branch, shape, config.training_log_det, config.evaluation_log_det)
    norms = [ActNorm(shape, per_value)] if config.actnorm else []
    return [block, *norms, *_conditional(config, shape)]


def _conditional(config: ModelConfig, shape: Shape) -> list[Bijection]:
    """The affine map that depends on the condition, where there is one."""
    return [ConditionalAffine(shape, config.condition.width)] if config.condition.is_given else []


def _squeezed(shape: Shape, config: ModelConfig) -> Shape:
    channels, height, width = shape
    if height % 2 or width % 2:
        raise ConfigError(
            f"blocks {config.blocks} with squeeze_first {config.squeeze_first} squeeze images of shape {config.shape} "
            f"once too often: a map of {height} x {width} cannot be halved"
        )
    return 4 * channels, height // 2, width // 2


def _halved(shape: Shape) -> Shape:
    channels, height, width = shape
    if channels % 2:
        raise ConfigError(f"factor_out needs an even number of channels after each scale but has {channels}")
    return channels // 2, height, width
