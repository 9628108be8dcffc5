"""Samples at several temperatures, reconstructions and neighbours of a small flow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import acf
from acf.data import load
from acf.data.prepared.tensors import Images
from acf.evaluation.sampled import sampled
from acf.settings.config import SamplingConfig

LEVELS = 17


@pytest.fixture(scope="module")
def flow(trained: Path) -> acf.Flow:
    return acf.load(trained / "models/digits/acf-l2/seed0").eval()


def cells(picture: Any, columns: int) -> np.ndarray:
    """Images of 8x8 of a grid (rows, columns, 8, 8)."""
    values = np.asarray(picture)
    rows = (len(values) - 1) // 9
    return np.array(
        [[values[9 * i + 1 : 9 * i + 9, 9 * j + 1 : 9 * j + 9] for j in range(columns)] for i in range(rows)]
    )


def images(trained: Path) -> tuple[Images, Images]:
    train, test = (load("digits", split, trained / "data", LEVELS) for split in ("train", "test"))
    return train, test


def test_rows_are_temperatures_of_the_same_latents(flow: acf.Flow, trained: Path) -> None:
    config = SamplingConfig(samples=4, columns=3, reconstructions=2, temperatures=[1.0, 0.5, 1e-6])
    pictures, numbers = sampled(flow, *images(trained), config)
    rows = cells(pictures["temperatures"], 3)
    z = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    for row, temperature in zip(rows, config.temperatures, strict=True):
        x = flow.inverse(temperature * z)[:3].clamp(0, 1 - 1e-6)
        expected = ((x * LEVELS).floor() * 255 / (LEVELS - 1)).round().squeeze(1).numpy()
        assert np.abs(row - expected).max() <= 1
    assert (rows[2] == rows[2][0]).all()  # without noise all are f^-1(0)
    assert numbers["temperatures"][2]["spread"] == 0
    assert [row["temperature"] for row in numbers["temperatures"]] == config.temperatures
    assert np.array_equal(cells(pictures["samples"], 2).reshape(4, 8, 8)[:3], rows[0])
    one = sampled(flow, *images(trained), config.model_copy(update={"temperatures": [0.5], "columns": 9}))
    assert np.array_equal(cells(one.pictures["temperatures"], 4)[0, :3], rows[1])


def test_neighbours_stand_below_samples_and_copies_are_seen(flow: acf.Flow, trained: Path) -> None:
    train, test = images(trained)
    config = SamplingConfig(samples=4, columns=4, reconstructions=2)
    pictures, numbers = sampled(flow, train, test, config)
    found = numbers["nearest"]
    above, below = cells(pictures["nearest"], 4)
    for sample, neighbour, place, distance in zip(
        above, below, found["samples"]["places"], found["samples"]["distances"], strict=True
    ):
        levels = train[place][0].numpy()
        assert np.array_equal(neighbour, np.round(levels * (255 / 16)).astype(np.uint8))
        assert distance == pytest.approx(np.linalg.norm(np.round(sample / 255 * 16) / 16 - levels / 16), abs=1e-9)
    assert found["training_images"] == len(train)
    assert min(found["test"]["distances"]) > 0
    copied = sampled(flow, test, test, config).numbers["nearest"]
    assert copied["test"] == {"distances": [0.0] * 4, "places": [0, 1, 2, 3]}


def test_errors_of_reconstructions_are_those_of_the_inverse(flow: acf.Flow, trained: Path) -> None:
    config = SamplingConfig(samples=1, reconstructions=3, temperatures=[1.0])
    exact = sampled(flow, *images(trained), config).numbers["reconstructions"]
    assert 0 < max(exact["largest"]) < 1e-4
    assert all(mean < largest for mean, largest in zip(exact["mean"], exact["largest"], strict=True))
    assert exact["changed"] == [0, 0, 0]
    assert len(exact["block_bound"]) == 3
    assert all(0 < bound < 0.1 for bound in exact["block_bound"])
    broken = acf.load(trained / "models/digits/acf-l2/seed0").eval()
    original = broken.preprocessing.inverse
    broken.preprocessing.inverse = lambda y: original(y) + 1 / LEVELS  # type: ignore[method-assign, assignment]
    found = sampled(broken, *images(trained), config).numbers["reconstructions"]
    assert found["largest"] == pytest.approx([1 / LEVELS] * 3, rel=0.01)
    assert min(found["changed"]) > 30
