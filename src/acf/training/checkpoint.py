"""Checkpoint files: complete, checked by a hash, and the one before kept beside the last."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from acf.errors import TrainingError, UnwritableError
from acf.runs.files import replacing

NAME, BEFORE, DAMAGED = "checkpoint.pt", "checkpoint.before.pt", "checkpoint.damaged.pt"
MAGIC = b"acf checkpoint, sha256 "
HEADER_BYTES = len(MAGIC) + 64 + 1
"""A file is the line `acf checkpoint, sha256 <hash of the rest>`, then what `torch.save` writes."""


class _DamagedError(Exception):
    pass


def write_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Make `content` (tensors and plain values) the last checkpoint in `folder`; the last one becomes the one before.

    Names change only once the new file is on the disk, which has to have space for three. At every moment there is at
    least one complete checkpoint, if there was one.

    Raises:
        UnwritableError: the disk is full or read-only; the two checkpoints are as they were.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getbuffer()
    path = folder / NAME
    with replacing(path) as file:
        file.write(_header(payload))
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())  # a disk may say only now that it is full
        if path.is_file():
            path.replace(folder / BEFORE)


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


class Checkpoints:
    """The checkpoints of one training, which goes on while they cannot be written.

    Args:
        folder: where they are.

    Attributes:
        step: number of steps done in the last one that is on the disk; 0 if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refusal: UnwritableError | None = None
        self.step = 0

    def read(self) -> dict[str, Any] | None:
        """Return the content of the last good one, None if there is none; as `read_checkpoint`."""
        content = read_checkpoint(self._folder)
        self.step = content["step"] if content else 0
        return content

    def write(self, content: dict[str, Any], say: Callable[[str], None]) -> None:
        """Write one if that is possible; hand a line to `say` when it no longer is, and when it is again."""
        try:
            write_checkpoint(self._folder, content)
        except UnwritableError as error:
            if self._refusal is None:
                say(f"{error}; training goes on and will try again, and until then {self._next_start()}")
            self._refusal = error
            return
        if self._refusal is not None:
            say(f"checkpoints can be written again; that of step {content['step']} is")
        self._refusal = None
        self.step = content["step"]

    def loss(self, step: int) -> str:
        """Return what is lost if training ends now, `step` steps done, for a message; "" if nothing is."""
        return f"{self._next_start()} ({self._refusal})" if self._refusal and step > self.step else ""

    def _next_start(self) -> str:
        return f"the next start goes on from step {self.step}" if self.step else "the next start begins again"


@contextmanager
def usable(title: str, folder: Path) -> Iterator[None]:
    """Turn the errors of loading a whole checkpoint of `folder` into a `TrainingError` of the run `title`."""
    try:
        yield
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{title}: the checkpoint in {folder} is whole but torch {torch.__version__} cannot use it "
            f"({error!r}); go on with the version that wrote it, or delete it to start again"
        ) from None


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
