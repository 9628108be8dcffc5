"""How many cases a fuzz tries, and what a program may do with any of them."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from acf.errors import AcfError

SAMPLE, MANY = 60, 10_000
"""Cases in the ordinary run, always the same ones, and in `pytest -m fuzz`, other ones each time."""

LONGEST_MESSAGE = 1000

Case = TypeVar("Case")
Value = TypeVar("Value")

few_or_many = pytest.mark.parametrize("cases", [SAMPLE, pytest.param(MANY, marks=pytest.mark.fuzz)])


def try_all(cases: int, of: SearchStrategy[Case], holds: Callable[[Case], None], seconds: float = 10) -> None:
    """Assert that `holds` raises nothing, for as many cases as asked for, and takes at most `seconds` for each.

    A case that fails is shown after it has been made as small as hypothesis can.
    """

    @settings(
        max_examples=cases,
        derandomize=cases == SAMPLE,
        database=None,
        deadline=1000 * seconds,
        suppress_health_check=list(HealthCheck),
    )
    @given(of)
    def every(case: Case) -> None:
        holds(case)

    every()


def value_or_refusal(attempt: Callable[[], Value]) -> Value | AcfError:
    """Return what an attempt gives, or its error, which must be one clear sentence; any other error is a failure."""
    try:
        return attempt()
    except AcfError as error:
        assert_one_sentence(str(error))
        return error


def assert_one_sentence(message: str) -> None:
    """Assert that a message is one line of bearable length that a terminal can show."""
    assert message.strip()
    assert len(message) <= LONGEST_MESSAGE, f"{len(message)} letters: {message[:200]}..."
    assert message.isprintable(), ascii(message)
