"""From `.npy` files of real vectors to standardised `.pth` files, in constant memory."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from acf.data.download.progress import shown
from acf.data.formats.npy import PIECE, NpyFile
from acf.data.formats.pth import write_pth
from acf.data.prepared.manifest import Column
from acf.errors import DataError
from acf.runs.files import replacing


def columns_of(source: Path, names: Sequence[str], origin: str) -> list[Column]:
    """Return name, mean and standard deviation of each column of an array (N, D), in float64.

    The standard deviation is sqrt(sum (x - mean)^2 / N), from a second pass over the array.

    Args:
        source: the `.npy` file, float64.
        names: of the D columns.
        origin: what to call the array in messages.

    Raises:
        DataError: a column has one value only, or values so large that their square is not finite; names it.
    """
    rows = NpyFile(source, np.float64)
    count = rows.shape[0]
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    mean, square = np.zeros(len(names)), np.zeros(len(names))
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in rows.chunks(PIECE):
            low, high = np.minimum(low, piece.min(0)), np.maximum(high, piece.max(0))
            mean += (piece / count).sum(0)
        for piece in rows.chunks(PIECE):
            square += ((piece - mean) ** 2 / count).sum(0)
    for j in np.flatnonzero(low == high).tolist():
        raise DataError(
            f"{origin}: column {names[j]!r} is {low[j]} in every row, so it has no density; leave it out of `columns`"
        )
    for j in np.flatnonzero(~(np.isfinite(square) & (square > 0))).tolist():
        raise DataError(f"{origin}: column {names[j]!r} has no standard deviation in float64; change its units")
    std = np.sqrt(square).tolist()
    return [Column(name=n, mean=m, std=s) for n, m, s in zip(names, mean.tolist(), std, strict=True)]


def npy_to_vectors(source: Path, target: Path, columns: Sequence[Column], origin: str) -> tuple[str, int]:
    """Write (x - mean) / std of an array (N, D), computed in float64, as a float32 tensor.

    Args:
        source: the `.npy` file, float64.
        target: the `.pth` file, replaced only when all is written.
        columns: mean and standard deviation of each column.
        origin: what to call the array in messages.

    Returns:
        SHA-256 of the tensor's bytes, and N.

    Raises:
        DataError: a value is not finite in float32; or `target` cannot be written.
    """
    rows = NpyFile(source, np.float64)
    mean, std = np.array([c.mean for c in columns]), np.array([c.std for c in columns])
    digest = hashlib.sha256()

    def pieces() -> Iterator[np.ndarray]:
        for piece in shown(rows.chunks(PIECE), f"writing {target}", rows.shape[0]):
            with np.errstate(over="ignore"):
                values = ((piece - mean) / std).astype(np.float32)
            if not np.isfinite(values).all():
                j = np.argwhere(~np.isfinite(values))[0][1]
                raise DataError(f"{origin}: column {columns[j].name!r} has a value too far from its mean for float32")
            digest.update(values.data)
            yield values

    with replacing(target) as file:
        write_pth(file, Path(file.name), (rows.shape[0], len(columns)), pieces(), torch.float32)
    return digest.hexdigest(), rows.shape[0]
