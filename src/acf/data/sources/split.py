"""Splits for data sets that come without one: seeded, disjoint, and the same on every machine."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from acf.data.prepared.manifest import Split
from acf.data.sources.dataset import Dataset

SEED = 0


class Divided(Dataset):
    """Base of data sets whose files are not divided into training and test samples.

    Attributes:
        test_share: share of the samples held out for testing.
        seed: of the split.
    """

    test_share: ClassVar[float] = 0.1
    seed: ClassVar[int] = SEED
    counts: ClassVar[Mapping[Split, None]] = {"train": None, "test": None}
    manual = True

    def divide(self, count: int) -> Mapping[Split, np.ndarray]:
        """Return the indices of both splits among `count` samples."""
        return drawn(count, self.test_share, self.seed)


def drawn(count: int, test_share: float, seed: int = SEED) -> Mapping[Split, np.ndarray]:
    """Return the indices of the training and the test samples among `count`, each in order; together they are all.

    The test split is the first round(test_share * count) of a permutation by numpy's PCG64; of two samples or more,
    each split has at least one.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    test = max(1, min(round(test_share * count), count - 1))
    return {"train": np.sort(order[test:]), "test": np.sort(order[:test])}
