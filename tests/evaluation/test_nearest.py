"""Nearest training images: against a search by brute force over integers, in pieces, with ties and copies."""

import numpy as np
import pytest
import torch

from acf.data.prepared.tensors import Images
from acf.evaluation.nearest import nearest

CPU = torch.device("cpu")


def drawn(count: int, high: int, seed: int, shape: tuple[int, ...] = (3, 4, 4)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (count, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("piece", [1, 100, 48 * 7, 2**24])
def test_the_search_is_exact_in_pieces(piece: int) -> None:
    images, train = drawn(5, 256, 0), drawn(40, 256, 1)
    found = nearest(images, Images(train, 256), CPU, piece)
    differences = images.flatten(1).numpy().astype(np.int64)[:, None] - train.flatten(1).numpy().astype(np.int64)
    squared = (differences**2).sum(-1)
    assert found.indices.tolist() == squared.argmin(1).tolist()
    assert np.array_equal(found.distances.numpy(), np.sqrt(squared.min(1)))


def test_copies_are_at_distance_zero_and_the_first_of_equals_is_named() -> None:
    train = drawn(30, 256, 2, (3, 32, 32))
    train[[4, 20]] = train[11].clone()
    images = torch.cat([train[11:12], train[29:30]])
    images[1, 0, 0, 0] ^= 1  # one grey level off: float32 would not see it among squares that add up to 10^8
    for piece in (2**24, 3072 * 7):
        found = nearest(images, Images(train, 256), CPU, piece)
        assert found.indices.tolist() == [4, 29]
        assert found.distances.tolist() == [0.0, 1.0]


def test_levels_are_those_that_the_model_sees() -> None:
    stored = drawn(6, 256, 3)
    found = nearest(stored[2:3] // 8, Images(stored, 256, 32), CPU)
    assert found.distances.tolist() == [0.0]
