"""Reading ahead changes neither the images nor their order, and ends with its context."""

import threading
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from acf.runs.ranks import ALONE
from acf.training.batches import Batches
from acf.training.reader import BatchReader
from tests.training.trainers import CPU


def batches() -> Batches:
    images = torch.arange(50, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Batches(images, held_out=10, seed=3)


def test_batches_are_those_at_their_positions_in_any_order() -> None:
    plain = batches()
    reader = BatchReader(batches(), 64, ALONE, CPU)
    positions = [0, 7, 14, 21, 14, 0, 35, 42, 400, 407]
    with reader:
        for position in positions:
            assert torch.equal(reader.read(position, 7).images, plain.batch_at(position, 7))
            assert torch.equal(reader.read(position + 7, 5).images, plain.batch_at(position + 7, 5))
    assert torch.equal(reader.read(3, 4).images, plain.batch_at(3, 4))


def test_the_thread_ends_with_the_context_whatever_ends_it() -> None:
    before = threading.active_count()
    reader = BatchReader(batches(), 64, ALONE, CPU)
    for _ in range(2):
        with suppress(KeyboardInterrupt), reader:
            reader.read(0, 8)
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt
        assert threading.active_count() == before


class Broken(Batches):
    def batch_at(self, position: int, size: int) -> Tensor:
        if position:
            raise OSError("the disk is gone")
        return super().batch_at(position, size)


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for() -> None:
    images = torch.zeros(50, 1, 1, 1, dtype=torch.uint8)
    with BatchReader(Broken(images, held_out=10, seed=3), 64, ALONE, CPU) as reader:
        reader.read(0, 8)
        with pytest.raises(OSError, match="the disk is gone"):
            reader.read(8, 8)
