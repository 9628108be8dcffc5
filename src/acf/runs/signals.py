"""Signals that ask a program to stop: noted between two steps of training, an interruption everywhere else."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Ctrl-C, a closed terminal, `kill`, and what schedulers send some time before they kill."""


class StopSignals:
    """A context in which signals to stop are noted instead of ending the process.

    The handlers from before are put back at its end. A signal that is ignored stays so (`nohup` has SIGHUP ignored).
    Outside the main thread, where Python allows no handlers, nothing changes. It can be entered again after its end.

    Attributes:
        received: the last such signal since the context was entered; None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._raising = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in [getattr(signal, name) for name in NAMES if hasattr(signal, name)]:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # None is a handler that Python cannot put back
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A context within this one that the first signal ends by `KeyboardInterrupt`, even one from before.

        Libraries may make another exception of it.
        """
        self._raising = True
        try:
            if self.received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._raising = False

    def _note(self, number: int, _: object) -> None:
        self.received = signal.Signals(number)
        if self._raising:
            self._raising = False
            raise KeyboardInterrupt


class Interruptible(StopSignals):
    """A context in which every signal to stop raises `KeyboardInterrupt`, as Ctrl-C does, and is noted."""

    def _note(self, number: int, _: object) -> None:
        super()._note(number, _)
        raise KeyboardInterrupt
