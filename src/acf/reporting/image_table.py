"""Tables of single test images: one row per image, in the order of the test split, means over draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acf.errors import AcfError

CLOSE = 1e-9
"""Bits/dim by which the mean of a column may differ from the mean in the record."""


def image_table(columns: Mapping[str, ArrayLike]) -> bytes:
    """Return the CSV file with a row for each image: its number, from 0, and `columns`, digit by digit."""
    rows = zip(*(np.asarray(values, dtype=float).tolist() for values in columns.values()), strict=True)
    lines = [",".join(map(repr, (image, *row))) for image, row in enumerate(rows)]
    return "".join(f"{line}\n" for line in [",".join(["image", *columns]), *lines]).encode()


def read_image_table(
    path: Path, record: Path, means: Mapping[str, float], images: int, sha256: str | None, command: str
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a table of images, each of shape (images,).

    Args:
        path: the table.
        record: the file with the means of its columns, for messages.
        means: of each column beside `image`, in the order of the columns.
        images: number of rows.
        sha256: hash of the table that `record` has; None if it has none.
        command: what writes both files again, for messages.

    Raises:
        AcfError: the table cannot be read, or is not the one that was written with the record; names both and the
            command.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AcfError(f"{path} cannot be read: {error.strerror or error}; run: {command}") from None
    try:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("it is damaged, or of another evaluation" if sha256 else "no hash of a table stands there")
        return _columns(content.decode("ascii"), means, images)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise AcfError(f"{path} does not belong to {record}: {reason}; run: {command}") from None


def _columns(text: str, means: Mapping[str, float], images: int) -> dict[str, NDArray[np.float64]]:
    header, _, rows = text.partition("\n")
    if header.split(",") != ["image", *means]:
        raise ValueError(f"its columns are {header[:80]}")
    values = np.loadtxt(rows.splitlines(), delimiter=",", ndmin=2) if rows else np.empty((0, 1 + len(means)))
    if len(values) != images:
        raise ValueError(f"it has {len(values)} images instead of {images}")
    if not np.array_equal(values[:, 0], np.arange(images)):
        raise ValueError("its images are not numbered in order")
    if not np.isfinite(values).all():
        raise ValueError("a value is no number")
    columns = dict(zip(means, values[:, 1:].T, strict=True))
    for name, mean in means.items():
        if (apart := abs(float(columns[name].mean()) - mean)) > CLOSE:
            raise ValueError(f"the means of {name} differ by {apart:.1e}")
    return columns
