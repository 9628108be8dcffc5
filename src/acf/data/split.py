"""Splits that are ours to draw: seeded, disjoint, and the same on every machine."""

from collections.abc import Mapping

import numpy as np

from acf.data.prepared.manifest import Split

SEED = 0


def drawn(count: int, test_share: float, seed: int = SEED) -> Mapping[Split, np.ndarray]:
    """Return the indices of the training and the test images among `count`, each in order; together they are all.

    The test split is the first round(test_share * count), at least one, of a permutation by numpy's PCG64.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    test = max(1, round(test_share * count))
    return {"train": np.sort(order[test:]), "test": np.sort(order[:test])}
