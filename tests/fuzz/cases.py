"""How many cases a fuzz tries, and what a program may do with any of them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from acf.errors import AcfError

SAMPLE, MANY = 10, int(os.environ.get("FUZZ_CASES", "10000"))
"""Cases in the ordinary run, always the same ones, and in `pytest -m fuzz`, other ones each time."""

LONGEST_MESSAGE = 1000

Case = TypeVar("Case")
Value = TypeVar("Value")

few_or_many = pytest.mark.parametrize("cases", [SAMPLE, pytest.param(MANY, marks=pytest.mark.fuzz)])


def try_all(cases: int, of: SearchStrategy[Case], holds: Callable[[Case], None]) -> None:
    """Assert that `holds` raises nothing, and ends, for as many cases as asked for.

    A case that fails is shown after it has been made as small as hypothesis can.
    """

    @settings(
        max_examples=cases,
        derandomize=cases == SAMPLE,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(of)
    def every(case: Case) -> None:
        with bounded_time():
            holds(case)

    every()


@contextmanager
def bounded_time(seconds: float = 20) -> Iterator[None]:
    """Fail, even in the middle of an endless loop, once the process has computed so long in this context."""

    def stop(*_: object) -> NoReturn:
        pytest.fail(f"it takes more than {seconds} s of computing")

    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


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
