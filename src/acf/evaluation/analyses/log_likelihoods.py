"""Log-likelihoods of training, test and other images, and how well they tell these apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from acf.data.prepared.held_out import held_out_order
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.likelihood import measure
from acf.flows.flow import Flow
from acf.settings.analysis_config import DensitiesConfig

TRAIN, TEST = "train", "test"


def densities(flow: Flow, analysed: Analysed, config: DensitiesConfig) -> Found:
    """Measure bits/dim of images of several sets, one draw of the noise each, with evaluation's estimator.

    Returns:
        `sets`: per set (`train`, `test` and the others) the `bits_per_dim` of each image, to six digits, their `mean`
        and its standard error `se` over images. `gap`: mean of the test images less that of the training images, with
        its standard error `se`: above 0 the flow gives training images more likelihood. `told_apart`: per other set the
        `auroc` with its standard error `se`.
    """
    generator = torch.Generator("cpu").manual_seed(analysed.evaluation.seed)
    bits = {
        name: measure(flow, images, 1, analysed.evaluation.batch_size, generator).bits_per_dim[0]
        for name, images in image_sets(analysed, config).items()
    }
    train, test = (standard_error(bits[name]) for name in (TRAIN, TEST))
    gap = float(bits[TEST].mean() - bits[TRAIN].mean())
    others = [name for name in bits if name not in (TRAIN, TEST)]
    return Found(
        {
            "sets": {name: _summary(values) for name, values in bits.items()},
            "gap": {"value": gap, "se": math.hypot(train, test)},
            "told_apart": {
                name: dict(zip(("auroc", "se"), auroc(bits[TEST], bits[name]), strict=True)) for name in others
            },
        }
    )


def image_sets(analysed: Analysed, config: DensitiesConfig) -> dict[str, Tensor]:
    """Return the images of each set, uint8 (n, C, H, W), at most `config.images` each.

    Training images are taken from the end of the order in which they are held out for validation, so that the flow was
    trained on them unless there are too few.
    """
    draw = torch.Generator("cpu").manual_seed(analysed.evaluation.seed)
    order = held_out_order(len(analysed.train))
    test = analysed.test[: config.images]
    sets = {TRAIN: analysed.train[order[-config.images :].sort().values], TEST: test}
    for name in config.others:
        if name == "noise":
            sets[name] = torch.randint(analysed.test.levels, test.shape, generator=draw, device="cpu").to(torch.uint8)
        elif name == "shuffled":
            values = test.flatten(1)
            places = torch.rand(values.shape, generator=draw, device="cpu").argsort(1)
            sets[name] = values.gather(1, places).view_as(test)
        else:
            sets[name] = analysed.others[name][: config.images]
    return sets


def auroc(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """Return the area under the receiver operating characteristic of bits/dim, and its standard error.

    It is the probability that an image from inside has fewer bits/dim than one from outside, ties counting one half:
    1/2 where the two do not differ, 0 where all from outside have fewer. The standard error is DeLong's (Biometrics 44,
    1988, p. 837): the variance of each image's share of pairs won, over images from inside and from outside. It is 0
    where one set lies wholly beside the other, which then says no more than that.

    Args:
        inside: (m,), m >= 2.
        outside: (n,), n >= 2.
    """
    won = (inside[:, None] < outside).double() + 0.5 * (inside[:, None] == outside).double()
    return float(won.mean()), math.hypot(standard_error(won.mean(1)), standard_error(won.mean(0)))


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values (n,), n >= 2."""
    return float(values.std()) / math.sqrt(len(values))


def _summary(values: Tensor) -> dict[str, Any]:
    rounded = [round(value, 6) for value in values.tolist()]
    return {"mean": float(values.mean()), "se": standard_error(values), "bits_per_dim": rounded}
