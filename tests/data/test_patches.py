"""Patches of two photographs: the splits share no pixel, and are what the class says."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from acf.data import load, verify
from acf.data.prepared.labels import read_labels
from acf.data.sources.patches import HEIGHT, NAMES, SIDE, WIDTH, places
from acf.stages.prepare import prepare

MARGIN = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepare("patches", root)
    return root


def covered(split: str) -> np.ndarray:
    """How many patches of a split each pixel of each photograph is in."""
    times = np.zeros((len(NAMES), HEIGHT, WIDTH), int)
    for number, row, column in places(split):
        times[number, row : row + SIDE, column : column + SIDE] += 1
    return times


def test_no_pixel_is_in_both_splits_and_a_margin_is_between() -> None:
    train, test = covered("train") > 0, covered("test") > 0
    for shift in range(-MARGIN, MARGIN + 1):
        assert not (np.roll(train, shift, axis=2)[:, :, MARGIN:-MARGIN] & test[:, :, MARGIN:-MARGIN]).any()


def test_no_block_of_jpeg_has_pixels_of_both() -> None:
    train, test = (covered(split)[:, : HEIGHT // 8 * 8] > 0 for split in ("train", "test"))
    blocks = [part.reshape(len(NAMES), HEIGHT // 8, 8, WIDTH // 8, 8).any((2, 4)) for part in (train, test)]
    assert not (blocks[0] & blocks[1]).any()


def test_test_patches_do_not_overlap_and_are_all_that_fit() -> None:
    assert covered("test").max() == 1
    assert len(places("test")) == 832 == len(NAMES) * (HEIGHT // SIDE) * 2 * (128 // SIDE)


def test_training_patches_are_different_ones_of_both_photographs() -> None:
    where = places("train")
    assert len(np.unique(where, axis=0)) == len(where) == 10000
    assert np.bincount(where[:, 0]).tolist() == [5000, 5000]
    for split in ("train", "test"):
        first = places(split)[:50]
        assert 10 < first[:, 0].sum() < 40, "the first patches are of both"
        assert np.ptp(first[:, 2]) > WIDTH / 2, "and from all over them"


def test_patches_are_pixels_of_the_photographs(root: Path) -> None:
    photographs = [load_sample_image(f"{name}.jpg") for name in NAMES]
    assert {photograph.shape for photograph in photographs} == {(HEIGHT, WIDTH, 3)}
    manifest, labels = verify("patches", root), read_labels("patches", root)
    assert (manifest.shape, manifest.levels, manifest.counts) == ((3, 16, 16), 256, {"train": 10000, "test": 832})
    assert labels.names == NAMES
    for split, of_photograph in (("train", labels.train), ("test", labels.test)):
        images, where = load("patches", split, root), places(split)
        assert of_photograph == where[:, 0].tolist()
        for place in (0, 1, len(where) - 1):
            number, row, column = where[place]
            expected = photographs[number][row : row + SIDE, column : column + SIDE]
            assert np.array_equal(images[place].numpy(), np.moveaxis(expected, -1, 0))
