"""Checkpoint files: complete, checked by a hash, and the one before kept beside the last."""

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from acf.runs.files import replacing, writing

NAME, BEFORE, DAMAGED = "checkpoint.pt", "checkpoint.before.pt", "checkpoint.damaged.pt"
MAGIC = b"acf checkpoint, sha256 "
HEADER_BYTES = len(MAGIC) + 64 + 1
"""A file is the line `acf checkpoint, sha256 <hash of the rest>`, then what `torch.save` writes."""


class _DamagedError(Exception):
    pass


def write_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Make `content` (tensors and plain values) the last checkpoint in `folder`; the last one becomes the one before.

    At every moment there is at least one complete checkpoint, if there was one.

    Raises:
        UnwritableError: the disk is full or read-only; the checkpoint that was the last is kept.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getbuffer()
    path = folder / NAME
    if path.is_file():
        with writing(path):
            path.replace(folder / BEFORE)
    with replacing(path) as file:
        file.write(_header(payload))
        file.write(payload)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the last checkpoint in `folder` whose bytes are those that were written, its tensors on the CPU.

    A damaged one is put aside under another name, which is printed. The result is None if no good one is left.

    Raises:
        Exception: whatever `torch.load` raises on a file of another version of torch.
    """
    payload, damaged = None, []
    for path in (folder / NAME, folder / BEFORE):
        try:
            payload = _payload(path)
            break
        except FileNotFoundError:
            continue
        except (_DamagedError, OSError) as error:
            damaged.append(f"{path} is damaged ({error.strerror if isinstance(error, OSError) else error})")
            with suppress(OSError):
                path.replace(folder / DAMAGED)
    outcome = "training starts again" if payload is None else "training goes on from the checkpoint before it"
    for fault in damaged:
        print(f"{fault}; {outcome}", flush=True)
    return None if payload is None else torch.load(payload, map_location="cpu", weights_only=True)


def _payload(path: Path) -> io.BytesIO:
    content = path.read_bytes()
    payload = memoryview(content)[HEADER_BYTES:]
    if not content:
        raise _DamagedError("empty")
    if not content.startswith(MAGIC):
        raise _DamagedError("not a checkpoint")
    if content[:HEADER_BYTES] != _header(payload):
        raise _DamagedError("its bytes are not those that were written")
    return io.BytesIO(payload)


def _header(payload: memoryview) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
