"""`acf prepare` killed at any moment: the next run completes, and the result is the same to the byte."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("name", "points"),
    [  # downloaded; where it lies
        pytest.param("celebahq256", 50, marks=pytest.mark.slow),
        pytest.param("imagenet32", 50, marks=pytest.mark.slow),
        ("imagenet32", 6),
    ],
)
def test_killed_anywhere(name: str, points: int, tried: Callable[[str, str, int], tuple[list[str], str]]) -> None:
    faults, last = tried("killed", name, points)
    assert faults == []
    # Some runs end before their turn.
    assert int(last.removeprefix("killed ")) >= points // 2
