"""How large the largest tensors of a stage are, from the settings alone: what decides how many threads pay."""

import math
from collections.abc import Sequence

from acf.settings.config import ModelParams, RunConfig


def work(settings: RunConfig, stage: str, shape: Sequence[int]) -> int:
    """Return the number of values in the largest tensor of a branch while `stage` works on a batch.

    Args:
        settings: of the run.
        stage: train, evaluate, sample, or the name of an analysis.
        shape: (C, H, W) of an image.
    """
    images = {
        "train": settings.training.batch_size,
        "evaluate": settings.evaluation.batch_size,
        "sample": settings.sampling.samples,
    }
    if stage in images:
        count = images[stage]
    else:
        count = getattr(settings.analyses, stage).images_at_once or settings.evaluation.batch_size
    return count * largest_map(settings.model, shape)


def largest_map(model: ModelParams, shape: Sequence[int]) -> int:
    """Return the number of values per image in the largest tensor of a flow's branches.

    That is the largest H W width over all scales: the width of a branch within, or, where it is more, heads times
    tokens, the width of attention's weights.

    Args:
        model: the architecture.
        shape: (C, H, W) of an image, or (D,) of a vector.
    """
    channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
    sizes = []
    for scale in range(len(model.blocks)):
        if scale > 0 or model.squeeze_first:
            channels, height, width = 4 * channels, height // 2, width // 2
        tokens = height * width
        widest = channels + model.dense.depth * model.dense.growth if model.branch == "dense" else model.idim
        if model.attention.kind != "none" and tokens <= model.attention.max_tokens:
            together = min(tokens, (model.attention.window or tokens) ** 2)
            widest = max(widest, model.attention.heads * together)
        sizes.append(tokens * widest)
        if model.factor_out:
            channels //= 2
    return max(sizes)


def covariance(shape: Sequence[int]) -> int:
    """Return the number of entries in the covariance of images of `shape`, the largest tensor of the baselines."""
    return math.prod(shape) ** 2
