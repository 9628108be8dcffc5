"""Stopping on a signal, between two steps."""

import signal
from types import TracebackType
from typing import Self


class StopSignals:
    """A context in which SIGTERM and SIGINT are noted instead of ending the process.

    The handlers from before are put back at its end. Python allows it in the main thread only.

    Attributes:
        received: the last such signal; None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.received = signal.Signals(number)
