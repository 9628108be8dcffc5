"""Where attention looks: its weights over images, their mean distance and entropy, by block and head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.block_inputs import watching
from acf.evaluation.likelihood import dequantise
from acf.flows.flow import Flow
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.settings.analysis_config import AttentionMapsConfig

LARGEST_CHUNK = 2**24
"""Number of weights that are in memory at a time; one head of one image, if these are more."""
LARGEST_MAP, LARGEST_PICTURE = 16, 64
"""Sides of the maps of weights and of the images that are stored; larger ones are reduced."""


@torch.no_grad()
def attention(flow: Flow, analysed: Analysed, config: AttentionMapsConfig) -> Found:
    """Measure the weights of every attention of the flow over test images.

    With weights P_ij of query i and key j at positions r_i, r_j of a map of N positions, per image and head the mean
    distance is sum_ij P_ij |r_i - r_j| / N in pixels of the map, and the entropy -sum_ij P_ij log P_ij / N in nats.

    Returns:
        `images`: how many. `pictures`: those whose weights are shown, grey levels 0 to 255 (C, H, W). `blocks`: per
        attention its block's `name`, `height`, `width`, mean distance and entropy of even weights 1 / N
        (`even_distance`, `even_entropy`), per head `distance` and `entropy` with standard errors over images (None for
        one image), the `queries` (row, column) and their `maps`: weights per image, head and query, of larger maps than
        16 x 16 summed over squares. `not_available`: blocks whose attention does not say its weights.
    """
    levels = flow.config.grey_levels
    images = analysed.test[: config.images]
    blocks = attentions(flow)
    shown = {round(index) for index in torch.linspace(0, len(blocks) - 1, config.shown_blocks).tolist()}
    seen: dict[nn.Module, _Weights] = {
        layer: _Weights(name, config, index in shown) for index, (name, layer) in enumerate(blocks.items())
    }
    parameter = next(flow.parameters())
    x = dequantise(images, levels, torch.Generator("cpu").manual_seed(analysed.evaluation.seed), parameter.dtype)
    if seen:
        with watching(list(seen), lambda layer, maps: seen[layer].add(cast(SelfAttention, layer), maps)):
            for part in x.split(config.images_at_once):
                flow.transform(part.to(parameter.device))
    return Found(
        {
            "images": len(images),
            "pictures": _pictures(images[: config.shown_images], levels) if blocks else [],
            "blocks": [weights.summary() for weights in seen.values() if weights.known],
            "not_available": [weights.name for weights in seen.values() if not weights.known],
        }
    )


def attentions(flow: Flow) -> dict[str, SelfAttention]:
    """Return the attention of each contractive block that has one, by the block's name."""
    found: dict[str, SelfAttention] = {}
    for name, block in flow.contractive_blocks().items():
        within = [module for module in block.branch.modules() if isinstance(module, SelfAttention)]
        for number, layer in enumerate(within, 1):
            found[name if len(within) == 1 else f"{name}, attention {number}"] = layer
    return found


class _Weights:
    """What has been measured of the weights of one attention.

    Args:
        name: of its block.
        config: which positions and how many images are shown.
        shown: whether its maps are kept.

    Attributes:
        known: whether the attention says its weights.
    """

    def __init__(self, name: str, config: AttentionMapsConfig, shown: bool) -> None:
        self.name, self.known = name, True
        self._queries = config.queries
        self._wanted = config.shown_images if shown else 0
        self._size = (0, 0)
        self._distance: list[Tensor] = []
        self._entropy: list[Tensor] = []
        self._maps: list[Tensor] = []

    def add(self, layer: SelfAttention, x: Tensor) -> None:
        """Measure the weights for further images, whose maps x (B, C, H, W) the attention is given."""
        self._size = (x.shape[2], x.shape[3])
        apart = distances(*self._size).to(x)
        distance, entropy = (torch.empty(len(x), layer.heads, dtype=torch.float64, device="cpu") for _ in range(2))
        places = [row * x.shape[3] + column for row, column in self._positions()]
        maps = torch.empty(min(self._wanted, len(x)), layer.heads, len(places), len(apart), device="cpu")
        self._wanted -= len(maps)
        try:
            for here, heads, p in chunks(layer, x):
                distance[here, heads] = torch.einsum("bhij,ij->bh", p, apart).cpu().double() / len(apart)
                entropy[here, heads] = torch.special.entr(p).sum((-2, -1)).cpu().double() / len(apart)
                some = maps[here, heads]
                some.copy_(p[: len(some), :, places])
        except NotImplementedError:
            self.known = False
            return
        self._distance.append(distance)
        self._entropy.append(entropy)
        self._maps.append(maps)

    def summary(self) -> dict[str, Any]:
        """Return what was found, as `attention` describes it."""
        height, width = self._size
        distance, entropy, maps = (torch.cat(parts) for parts in (self._distance, self._entropy, self._maps))
        measured = [_mean("distance", d) | _mean("entropy", e) for d, e in zip(distance.T, entropy.T, strict=True)]
        return {
            "name": self.name,
            "height": height,
            "width": width,
            "even_distance": float(distances(height, width).mean()),
            "even_entropy": math.log(height * width),
            "heads": measured,
            "queries": self._positions(),
            "maps": _short(_summed(maps.unflatten(-1, (height, width)), LARGEST_MAP)),
        }

    def _positions(self) -> list[tuple[int, int]]:
        """Return row and column of each query."""
        height, width = self._size
        return [(min(int(y * height), height - 1), min(int(x * width), width - 1)) for y, x in self._queries]


def chunks(layer: SelfAttention, x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield which images, which heads, and their weights (images, heads, N, N), of which few are in memory at a time.

    Raises:
        NotImplementedError: the attention does not say its weights.
    """
    matrix = (x.shape[2] * x.shape[3]) ** 2
    count = max(1, LARGEST_CHUNK // (layer.heads * matrix))
    heads = max(1, min(layer.heads, LARGEST_CHUNK // matrix))
    for image in range(0, len(x), count):
        for head in range(0, layer.heads, heads):
            here, some = slice(image, image + count), slice(head, head + heads)
            yield here, some, layer.weights_and_values_of(x[here], some)[0]


def distances(height: int, width: int) -> Tensor:
    """Return the Euclidean distances (N, N) of the N = H W positions of a map, counted row by row, in float64."""
    rows, columns = (torch.arange(side, dtype=torch.float64, device="cpu") for side in (height, width))
    places = torch.cartesian_prod(rows, columns)
    return torch.cdist(places, places)


def _mean(key: str, values: Tensor) -> dict[str, float | None]:
    """Return mean and standard error of independent values."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
    return {key: float(values.mean()), f"{key}_se": error}


def _pictures(images: Tensor, levels: int) -> Any:
    side = -(-max(images.shape[2:]) // LARGEST_PICTURE)
    reduced = functional.avg_pool2d(images.float(), side, ceil_mode=True) if side > 1 else images
    return (reduced * (255 / (levels - 1))).round().int().tolist()


def _summed(maps: Tensor, largest: int) -> Tensor:
    """Return maps (..., H, W), summed over squares if a side is longer than `largest`."""
    side = -(-max(maps.shape[-2:]) // largest)
    if side == 1:
        return maps
    sums = functional.avg_pool2d(maps.flatten(0, -3), side, ceil_mode=True, divisor_override=1)
    return sums.unflatten(0, maps.shape[:-2])


def _short(maps: Tensor) -> Any:
    """Return nested lists of numbers with four significant digits."""
    if maps.dim() == 0:
        return float(f"{float(maps):.4g}")
    return [_short(part) for part in maps]
