"""Errors meant for people: each message says what is wrong, where, and what to do."""

import re
from collections.abc import Iterable

from typing_extensions import override


def shown(value: object, most: int = 60) -> str:
    """Return a value as it can stand in a message: on one line, and not long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]}...{text[-1]}"


def dotted(keys: Iterable[object]) -> str:
    """Return the keys that lead to a value as a message names them, `experiments.digits.seeds`; odd ones in quotes."""
    return ".".join(str(key) if re.fullmatch(r"[\w-]{1,60}", str(key)) else shown(key) for key in keys)


class AcfError(Exception):
    """Base of all errors the command line prints as one message, without a traceback.

    Characters that no terminal shows, which damaged files bring into messages, are escaped.
    """

    @override
    def __str__(self) -> str:
        return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in super().__str__())


class ConfigError(AcfError):
    """A key of the configuration is unknown, missing or has an impossible value."""


class InputError(AcfError, ValueError):
    """An argument of the library has a shape, a type or values that it cannot have."""


class MissingPackageError(AcfError, ModuleNotFoundError):
    """An optional package is not installed; the message names the extra that brings it, `name` is the module."""


class DataError(AcfError):
    """A data set is missing, truncated, corrupt or has the wrong form."""


class UnwritableError(DataError):
    """A file cannot be written: the disk is full, a folder is read-only, or something else is in its place."""


class NoSpaceError(UnwritableError):
    """A file cannot be written as its disk, or a quota, is full."""


class NotContractiveError(AcfError):
    """A contractive block has no proof of contraction, so it may not be invertible."""


class ConvergenceError(AcfError):
    """A fixed-point iteration did not reach the accuracy it promised."""


class DerivativeError(AcfError):
    """A derivative was asked for that is not computed; without this error it would be wrong."""


class TrainingError(AcfError):
    """Training met a value from which it cannot go on (NaN, infinity)."""


class StoppedError(TrainingError):
    """A signal asked training to stop; it goes on from its checkpoint when the same command is run again."""


class LostRankError(TrainingError):
    """Another process of the same training has ended; what it had to say it has said itself."""
