import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from acf.data import load, verify
from acf.data.sources.digits import split_indices
from acf.stages.prepare import prepare

SHA256 = {
    "train": "c27a7f962708cae9edee7f95ef87fb6e339fd97063cadc5d8404f406a61043ab",
    "test": "4a5af014b67bc9c16d822c556f8fef8d6b41101cf8075dc5f82af40c6625a786",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return root


def test_split_is_disjoint_complete_and_fixed():
    labels = load_digits().target
    split, again = split_indices(labels), split_indices(labels)
    assert len(split["train"]) == 1500
    assert len(split["test"]) == 297
    assert sorted([*split["train"], *split["test"]]) == list(range(1797))
    assert all(np.array_equal(split[key], again[key]) for key in split)


def test_split_is_stratified_and_shuffled():
    labels = load_digits().target
    test = split_indices(labels)["test"]
    fair = np.bincount(labels) * 297 / 1797
    assert np.all(np.abs(np.bincount(labels[test]) - fair) < 1)
    assert abs(test[:50].mean() - 898) < 300, "the first images are from all over the source"


def test_tensors_are_the_images_of_the_split(root):
    digits = load_digits()
    for split, indices in split_indices(digits.target).items():
        tensor = load("digits", split, root)[:]
        assert tensor.shape == (len(indices), 1, 8, 8)
        assert np.array_equal(tensor[:, 0].numpy(), digits.images[indices])
        assert tensor.min() == 0
        assert tensor.max() == 16


def test_content_is_the_published_one(root):
    manifest = verify("digits", root)
    assert manifest.shape == (1, 8, 8)
    assert manifest.levels == 17
    assert manifest.bits == pytest.approx(4.087462841250339)
    for split, expected in SHA256.items():
        assert hashlib.sha256(load("digits", split, root)[:].numpy().tobytes()).hexdigest() == expected
        assert manifest.sha256[split] == expected
