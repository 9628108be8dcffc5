"""Images that are averaged when they are loaded: the rounding to the digit, the levels, and what is refused."""

import math
from fractions import Fraction
from itertools import product

import pytest
import torch

from acf.data import load
from acf.data.prepared.seen import average_between, averaged_shape
from acf.data.prepared.tensors import Images
from acf.errors import ConfigError
from acf.stages.prepare import prepare


def rounded_mean(square: torch.Tensor) -> int:
    """The mean as a fraction, rounded to the nearest whole number, halves up."""
    return math.floor(Fraction(int(square.sum()), square.numel()) + Fraction(1, 2))


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("levels", [17, 256])
def test_every_square_becomes_its_rounded_mean(k: int, levels: int) -> None:
    images = torch.randint(levels, (5, 2, 3 * k, 2 * k)).to(torch.uint8)
    seen = Images(images, levels, average=k)
    assert (seen.levels, seen.shape, len(seen)) == (levels, (5, 2, 3, 2), 5)
    for n, c, i, j in product(range(5), range(2), range(3), range(2)):
        square = images[n, c, k * i : k * (i + 1), k * j : k * (j + 1)]
        assert seen[n][c, i, j] == rounded_mean(square)


def test_halves_go_up_and_all_levels_stay() -> None:
    squares = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 1, 1], [254, 255, 255, 254], [255, 255, 255, 255]])
    seen = Images(squares.to(torch.uint8).view(5, 1, 2, 2), 256, average=2)[:]
    assert seen.flatten().tolist() == [0, 1, 1, 255, 255]
    every = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, -1, 2, 2)
    assert Images(every, 256, average=2)[:].flatten().tolist() == list(range(256))


def test_levels_are_reduced_after_averaging() -> None:
    squares = torch.tensor([[7, 7, 8, 8], [0, 0, 15, 15], [31, 32, 32, 32]], dtype=torch.uint8).view(3, 1, 2, 2)
    assert Images(squares, 256, 32, average=2)[:].flatten().tolist() == [1, 1, 4]


def test_every_way_of_reading_gives_the_same() -> None:
    seen = Images(torch.randint(256, (7, 3, 8, 6)).to(torch.uint8), 256, 64, average=2)
    whole = seen[:]
    assert (whole.shape, whole.dtype) == (seen.shape, torch.uint8)
    assert torch.equal(seen[3], whole[3])
    assert torch.equal(seen[torch.tensor([5, 2])], whole[[5, 2]])
    assert torch.equal(seen.first(4)[1:], whole[1:4])
    assert torch.equal(torch.cat(list(seen.pieces(3))), whole)


def test_squares_have_to_fit(tmp_path) -> None:
    prepare("digits", tmp_path)
    assert load("digits", "test", tmp_path, average=4).shape == (297, 1, 2, 2)
    with pytest.raises(ConfigError, match="average is 3, which does not divide height and width of images of 1x8x8"):
        load("digits", "test", tmp_path, average=3)
    with pytest.raises(ConfigError, match="images of 1x4x6"):
        averaged_shape((1, 4, 6), 4)


def test_the_side_follows_from_two_shapes() -> None:
    assert average_between((1, 28, 28), (1, 14, 14)) == 2
    assert average_between((3, 8, 12), (3, 2, 3)) == 4
    assert average_between((1, 8, 8), (1, 8, 8)) == 1
    assert average_between((1, 8, 8), (3, 4, 4)) == 1
    assert average_between((1, 8, 8), (1, 4, 8)) == 1
    assert average_between((5,), (5,)) == 1
