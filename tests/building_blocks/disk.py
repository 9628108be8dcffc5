"""A disk that can be full."""

import errno
import os

import pytest


class Disk:
    """A disk that is full while `full` holds, and says so only when a file is to reach it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        original = os.fsync

        def fsync(descriptor: int) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(descriptor)

        monkeypatch.setattr("os.fsync", fsync)
