"""How numbers are written: digits that match the standard error, a dash for what a row has no value for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

ABSENT = "—"
NOT_AVAILABLE = "not available"
NOT_COMPARABLE = "not comparable"
PLAIN = str.maketrans({"±": "+/-", "−": "-", ABSENT: "-"})
"""What stands for characters that a terminal's encoding may not have."""

Column = tuple[str, Callable[[Any], str]]
"""Heading and the text of a row's cell."""


def seconds_note(why: str) -> str:
    """Return the note on seconds of training that cannot be compared, for the reason `why`."""
    return f"Seconds of these trainings are not comparable with each other: {why}."


def with_error(value: float, error: float) -> str:
    """Return value ± error, the error with two significant digits and the value with the same decimals.

    An error that is rounding, below 1e-12, is written as 0, one that is not known as a dash.

    Raises:
        ValueError: the value is infinite, or the error is infinite or negative.
    """
    if pd.isna(value):
        return ABSENT
    if pd.isna(error):
        return f"{_minus(f'{value:.4f}')} ± {ABSENT}"
    if not (math.isfinite(value) and 0 <= error < math.inf):
        raise ValueError(f"{value} ± {error} is no measurement")
    if error < 1e-12:
        return f"{_minus(f'{value:.{_decimals(error)}f}')} ± 0"
    decimals = _decimals(error)
    return f"{_minus(f'{value:.{decimals}f}')} ± {error:.{decimals}f}"


def interval(low: float, high: float, error: float) -> str:
    """Return the ends of an interval with the decimals that `with_error` gives a value with this standard error."""
    if pd.isna(low):
        return ABSENT
    return f"{decimal(low, _decimals(error))} to {decimal(high, _decimals(error))}"


def each_seed(values: str | None, error: float) -> str:
    """Return the values of a cell of `bits_per_dim_of_seeds` with the decimals of their standard error."""
    numbers = [] if pd.isna(values) else [float(value.partition(": ")[2]) for value in str(values).split("; ")]
    return ", ".join(decimal(number, _decimals(error)) for number in numbers) if len(numbers) > 1 else ABSENT


def _decimals(error: float) -> int:
    """Return how many decimals show two significant digits of an error, 4 for one that is rounding."""
    return 4 if error < 1e-12 else max(1 - math.floor(math.log10(error)), 0)


def decimal(value: float, decimals: int = 3) -> str:
    """Return the value with a fixed number of decimals."""
    return ABSENT if pd.isna(value) else _minus(f"{value:.{decimals}f}")


def bound(value: float) -> str:
    """Return a Lipschitz bound rounded up, so that what is printed is proven too; below 1 stays below 1."""
    if pd.isna(value):
        return ABSENT
    for decimals in range(4, 16):
        up = math.ceil(value * 10**decimals - 1e-9) / 10**decimals
        if (up < 1) == (value < 1):
            return f"{up:.{decimals}f}"
    return repr(value)


def count(value: float) -> str:
    """Return a whole number with thousands separated."""
    return ABSENT if pd.isna(value) else f"{int(value):,}"


def scientific(value: float) -> str:
    """Return the value with two significant digits and an exponent."""
    if pd.isna(value):
        return ABSENT
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{_minus(str(int(exponent)))}"


def duration(seconds: float) -> str:
    """Return seconds as s, min or h, whichever reads best."""
    if pd.isna(seconds):
        return ABSENT
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rate(value: float) -> str:
    """Return a rate with three significant digits."""
    if pd.isna(value):
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def text(value: Any) -> str:
    """Return the value as it is."""
    return ABSENT if pd.isna(value) else str(value)


def printable(text: str, encoding: str) -> str:
    """Return the text in characters that `encoding` has: ± as +/-, dashes as -, and others by their numbers."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def join(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def trainings(own: int, other: int) -> str:
    """Return how many trainings two compared variants have."""
    if own == other:
        return "one training each" if own == 1 else f"{own} trainings each"
    return f"{own} and {other} trainings"


def _minus(number: str) -> str:
    return number.replace("-", "−")


NAME: Column = ("model", lambda row: str(row["row"]))
BITS: Column = ("bits/dim", lambda row: with_error(row["bits_per_dim"], row["bits_per_dim_se"]))
GAIN: Column = ("gain", lambda row: with_error(row["gain"], row["gain_se"]))
BASE_GAIN: Column = ("gain over base", lambda row: with_error(row["base_gain"], row["base_gain_se"]))
INTERVAL: Column = (
    "95 % interval",
    lambda row: interval(row["base_gain_low"], row["base_gain_high"], row["base_gain_se"]),
)
EACH_SEED: Column = ("each seed", lambda row: each_seed(row["bits_per_dim_of_seeds"], row["bits_per_dim_se"]))
PARTS: list[Column] = [
    ("log p(z)", lambda row: decimal(row["log_prob_z"])),
    ("log-determinant", lambda row: decimal(row["log_abs_det"])),
    ("dequantisation", lambda row: decimal(row["dequantisation"])),
]
PARAMETERS: Column = ("parameters", lambda row: count(row["parameters"]))
CERTIFICATE: Column = ("certificate", lambda row: bound(row["certificate"]))
RECONSTRUCTION: Column = ("reconstruction error", lambda row: scientific(row["reconstruction_error"]))
TRAINING: Column = ("training time", lambda row: duration(row["train_seconds"]))
STEPS: Column = ("steps", lambda row: count(row["train_steps"]))
MEASURED: list[Column] = [
    ("evaluations/s", lambda row: rate(row["images_per_second"])),
    ("device", lambda row: text(row["device"])),
]

LABELS: list[Column] = [
    ("accuracy", lambda row: with_error(row["accuracy"], row["accuracy_se"])),
    ("cross-entropy", lambda row: with_error(row["cross_entropy"], row["cross_entropy_se"])),
    ("calibration error", lambda row: with_error(row["calibration_error"], row["calibration_error_se"])),
]

COMPARED = [NAME, BITS, EACH_SEED, GAIN, BASE_GAIN, INTERVAL]
FULL = [*COMPARED, PARAMETERS, CERTIFICATE, RECONSTRUCTION, TRAINING, STEPS, *PARTS, *MEASURED]
TERMINAL = [NAME, BITS, GAIN, BASE_GAIN, PARAMETERS, CERTIFICATE, TRAINING]
README = [NAME, BITS, BASE_GAIN, PARAMETERS, CERTIFICATE, RECONSTRUCTION, TRAINING]


def full(table: pd.DataFrame) -> list[Column]:
    """Return all columns of the comparison table, those on labels where a row has them."""
    return [*FULL, *_on_labels(table)]


def terminal(table: pd.DataFrame) -> list[Column]:
    """Return the columns that a terminal shows; accuracy takes the place of the number of parameters."""
    of_labels = _on_labels(table)[:1]
    return [column for column in TERMINAL if not of_labels or column is not PARAMETERS] + of_labels


def _on_labels(table: pd.DataFrame) -> list[Column]:
    return LABELS if "accuracy" in table else []


def cells(table: pd.DataFrame, columns: list[Column]) -> list[list[str]]:
    """Return the text of each row of the comparison table."""
    return [[write(row) for _, write in columns] for _, row in table.iterrows()]


def headings(columns: list[Column]) -> list[str]:
    """Return the headings of `columns`."""
    return [heading for heading, _ in columns]


def markdown(table: pd.DataFrame, columns: list[Column]) -> str:
    """Return the table in markdown, numbers to the right."""
    return markdown_table(headings(columns), cells(table, columns))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return texts as a table in markdown, all columns but the first ones, `left` of them, to the right."""
    rule = [*["---"] * left, *["---:"] * (len(heads) - left)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [heads, rule, *rows])
