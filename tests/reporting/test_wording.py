"""Digits of printed numbers."""

import pytest

from acf.reporting.wording import bound, count, duration, rate, scientific, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.10341, 0.0123, "2.103 ± 0.012"),
        (2.10341, 0.00099, "2.10341 ± 0.00099"),
        (-0.57777, 0.0417, "−0.578 ± 0.042"),
        (31.234, 12.3, "31 ± 12"),
        (4.08746284, 0.0, "4.0875 ± 0"),
        (None, None, "—"),
        (float("nan"), float("nan"), "—"),
    ],
)
def test_value_and_error_have_the_same_decimals(value, error, text):
    assert with_error(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98, "0.9800"), (0.97001, "0.9701"), (0.99996, "0.99996"), (1.0, "1.0000"), (1.2345678, "1.2346")],
)
def test_a_bound_is_rounded_up_but_never_to_one(value, text):
    assert bound(value) == text


def test_other_numbers():
    assert count(1234567) == "1,234,567"
    assert scientific(1.26e-5) == "1.3e−5"
    assert [duration(s) for s in (3.21, 93.4, 744, 11520)] == ["3.2 s", "93 s", "12.4 min", "3.2 h"]
    assert [rate(r) for r in (1234.5, 37.04, 0.5)] == ["1,234", "37", "0.5"]
    assert {write(None) for write in (bound, count, scientific, duration, rate)} == {"—"}
