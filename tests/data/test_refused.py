"""A full disk and a read-only folder, for every source: one message, nothing corrupt, and the next run goes on."""

from collections.abc import Callable

import pytest

from tests.data.sources import CASES

PARTS = 5


QUICK = ("cifar10",)
"""For the others it is slow."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(CASES)]
)
def test_refused_writes(name: str, tried: Callable[[str, str, int], tuple[list[str], str]]) -> None:
    faults, last = tried("refused", name, PARTS)
    assert faults == []
    assert int(last.removeprefix("refused ")) == PARTS
