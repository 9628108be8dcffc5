"""Differences of mean bits/dim with both their errors: that of the test images and that of the trainings.

The model: image i of variant v, trained with seed s, has

    b[v, s, i] = mu[v] + a[i] + c[v, i] + t[v, s] + e[v, s, i],

where a is what images have in common under all models (hard ones are hard for all, and the dequantisation noise is the
same), c what is particular to a variant, t the effect of one training, of variance T common to all variants of an
experiment, and e the rest, of variance E, independent between images. Images are a sample, so are trainings. Images are
shared and therefore paired; trainings of two variants have nothing in common but the number of their seed.

For two variants A and B with S_A and S_B trainings and d[i] the difference of their means over seeds on image i,

    mean(d) has variance (C + k E) / N + k T,    k = 1 / S_A + 1 / S_B,

with C the variance of c[A, i] - c[B, i]; a has cancelled. It is estimated from three mean squares:

    var(d), which estimates C + k E, with N - 1 degrees of freedom;
    M, the variance of the means of trainings about those of their variants, pooled over all variants of the experiment,
       which estimates T + E / N, with f = sum of (S_v - 1);
    R, the variance of b[v, s, i] about its means over images and seeds, pooled likewise, which estimates E.

So the squared standard error is I + k M with the image part I = max(var(d) - k R, 0) / N: E is in M already and not
counted again. The interval is mean(d) +/- sqrt(t(N - 1)^2 I + t(f)^2 k M), t(n) being the quantile of Student's
distribution with n degrees of freedom: Banerjee's (Sankhya 22, 1960), which holds at least its level however the two
variances compare. Satterthwaite's approximation, the usual one, falls to 92 % for 95 % with two variants of two seeds.

With one training of each variant T is not known: the interval is mean(d) +/- t(N - 1) sqrt(var(d) / N), over test
images only, and says nothing of how another training would turn out. A density without training has no t and no e.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Of the intervals that a report gives."""
PERCENT = f"{LEVEL:.0%}".replace("%", " %")
"""The same in words."""


@dataclass(frozen=True)
class Row:
    """What was measured of a variant or of a baseline.

    Attributes:
        bits: bits/dim (S, N) of each image under the model of each seed; S is 1 without training.
        trained: whether there is a training, whose effect would differ from seed to seed.

    Raises:
        ValueError: there is no model, or fewer than two images.
    """

    bits: NDArray[np.float64]
    trained: bool = True

    def __post_init__(self) -> None:
        if self.bits.ndim != 2 or len(self.bits) < 1 or self.bits.shape[1] < 2:
            raise ValueError(f"bits/dim of at least one model on at least two images, not {self.bits.shape}")

    @property
    def images(self) -> int:
        """N."""
        return self.bits.shape[1]


@dataclass(frozen=True)
class TrainingSpread:
    """How trainings of one variant differ, pooled over the variants of an experiment.

    Attributes:
        between: M, which estimates T + E / N for `images` images.
        residual: R, which estimates E.
        df: f, degrees of freedom of M; 0 where no variant has several trainings, and then M and R are 0.
        images: N; 0 if `df` is.
    """

    between: float
    residual: float
    df: int
    images: int


@dataclass(frozen=True)
class Difference:
    """A difference of mean bits/dim.

    Attributes:
        mean: of the first row minus that of the second.
        image_part: I, or var(d) / N where trainings are not known; a squared standard error.
        training_part: k M; 0 where trainings are not known.
        images: N.
        training_df: f; 0 where trainings are not known.
    """

    mean: float
    image_part: float
    training_part: float
    images: int
    training_df: int

    @property
    def se(self) -> float:
        """Standard error over what `over` says."""
        return math.sqrt(self.image_part + self.training_part)

    @property
    def over(self) -> Literal["images", "images and seeds"]:
        """What the errors are over."""
        return "images and seeds" if self.training_df else "images"

    def interval(self, comparisons: int = 1, level: float = LEVEL) -> tuple[float, float]:
        """Return a confidence interval.

        Args:
            comparisons: number of intervals that are to hold all at once with `level`: each then has the level
                1 - (1 - level) / comparisons (Bonferroni).
            level: of all.

        Raises:
            ValueError: there are no comparisons, or the level is not between 0 and 1.
        """
        if comparisons < 1 or not 0 < level < 1:
            raise ValueError(f"no interval of level {level} for {comparisons} comparisons")
        from scipy.special import stdtrit  # quantiles of Student's distribution

        above = (1 - level) / (2 * comparisons)
        squared = self.image_part * stdtrit(self.images - 1, above) ** 2
        if self.training_df:
            squared += self.training_part * stdtrit(self.training_df, above) ** 2
        half = math.sqrt(squared)
        return self.mean - half, self.mean + half


def training_spread(rows: Iterable[Row]) -> TrainingSpread:
    """Return M and R of the rows with several trainings.

    Raises:
        ValueError: they have different numbers of images.
    """
    rows = [row for row in rows if row.trained and len(row.bits) > 1]
    if not rows:
        return TrainingSpread(0.0, 0.0, 0, 0)
    if len(numbers := {row.images for row in rows}) > 1:
        raise ValueError(f"different numbers of images: {sorted(numbers)}")
    (N,) = numbers
    between = residual = 0.0
    for row in rows:
        means = row.bits.mean(1, keepdims=True)
        between += float(((means - means.mean()) ** 2).sum())
        residual += float(((row.bits - means - row.bits.mean(0) + row.bits.mean()) ** 2).sum())
    f = sum(len(row.bits) - 1 for row in rows)
    return TrainingSpread(between / f, residual / (f * (N - 1)), f, N)


def difference(one: Row, other: Row, spread: TrainingSpread) -> Difference:
    """Return the mean bits/dim of `one` minus that of `other`, paired over images.

    Args:
        one: the first row.
        other: the second, on the same images in the same order.
        spread: of the trainings of the experiment that both are of, from `training_spread`.

    Raises:
        ValueError: the rows, or the spread, are of different numbers of images.
    """
    if len({one.images, other.images, spread.images or one.images}) > 1:
        raise ValueError(f"different numbers of images: {one.images}, {other.images}, {spread.images}")
    N = one.images
    d = one.bits.mean(0) - other.bits.mean(0)
    k = sum(1 / len(row.bits) for row in (one, other) if row.trained) if spread.df else 0.0
    return Difference(
        mean=float(d.mean()),
        image_part=max(float(d.var(ddof=1)) - k * spread.residual, 0.0) / N,
        training_part=k * spread.between,
        images=N,
        training_df=spread.df if k else 0,
    )
