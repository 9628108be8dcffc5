"""By what the columns of a page's tables are sorted."""

import pytest

from acf.reporting.page import sort_key


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1.978 ± 0.013", 1.978),
        ("−0.0159 ± 0.0026", -0.0159),
        ("−0.0210 to −0.0108", -0.021),
        ("156,833", 156833),
        ("5.5e−6", 5.5e-6),
        ("67 s", 67),
        ("2.5 min", 150),
        ("1.5 h", 5400),
        ("74.2 %", 74.2),
        ("0.12 (0.08 to 0.15)", 0.12),
        ("4 x 4", 4),
    ],
)
def test_a_cell_is_sorted_by_the_number_that_it_begins_with(cell: str, number: float) -> None:
    assert float(sort_key(cell)) == pytest.approx(number)


@pytest.mark.parametrize(
    "cell", ["", "—", "acf-l2", "not available", "12e45678901234567ab", "3e999999999999999999", "7f"]
)
def test_what_is_no_number_has_no_key(cell: str) -> None:
    assert sort_key(cell) == ""
