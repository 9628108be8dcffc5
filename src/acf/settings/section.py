"""What all sections of settings share: how strict they are, and the ranges of their numbers."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from acf.errors import shown

SEEDS = 2**63
"""Seeds are below this: torch's generators and both engines take them all, and an offset may be added to one."""


def _without_numpy(value: Any) -> Any:
    """Return an integer of numpy as Python's; what is no integer is left for the strict schema to refuse."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


INTEGRAL = BeforeValidator(_without_numpy)
MOST = 2**31
MOST_BLOCKS = 1000
"""They are made one after the other, so that a million of them would take days and not end in an error."""
MOST_TERMS = 1000
"""Of the power series: each costs a product with the Jacobian."""
MOST_EXACT = 256
"""Values of a flow with exact log-determinants: each costs a product with the Jacobian."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Natural = Annotated[int, Field(ge=0, lt=MOST), INTEGRAL]
Positive = Annotated[int, Field(ge=1, lt=MOST), INTEGRAL]
Several = Annotated[int, Field(ge=2, lt=MOST), INTEGRAL]
Blocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS), INTEGRAL]
Terms = Annotated[int, Field(ge=0, le=MOST_TERMS), INTEGRAL]
Levels = Annotated[int, Field(ge=2, le=256), INTEGRAL]
Temperature = Annotated[float, Field(gt=0, le=1e3)]
Seed = Annotated[int, Field(ge=0, lt=SEEDS), INTEGRAL]


def one_of(what: str, value: str, known: Iterable[str]) -> str:
    """Return `value`, or raise ValueError if it is not among the known ones."""
    if value not in known:
        raise ValueError(f"unknown {what} {shown(value)}; known: {', '.join(sorted(known))}")
    return value


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values do not change after validation.

    A boolean is not taken for a number, nor text for a number or a boolean, nor 3.0 for a whole number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
