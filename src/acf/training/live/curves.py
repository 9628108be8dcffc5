"""Handing the rows of a history on to sinks, whose failures are theirs alone."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from acf.errors import ConfigError
from acf.extras import install_command
from acf.registry import SINKS, require, resolve
from acf.training.live.sink import Sink


class LiveCurves:
    """A context in which a training hands over its history whenever that has a new row.

    Each sink begins anew with the first row when the context does, so that after a training went on from a checkpoint
    earlier than the last row, no row is lost or there twice. Nothing is removed or written before the first rows come.
    A sink that fails is left alone from then on, which is said once.

    Args:
        title: name of the run, at the start of messages.
        folders: where the curves of each sink go, by its name, a key of `SINKS`.
    """

    def __init__(self, title: str, folders: Mapping[str, Path]) -> None:
        self._title = title
        self._waiting = dict(folders)
        self._sinks: dict[str, Sink] = {}
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, sink in list(self._sinks.items()):
            self._try(name, sink.close)

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand over what is new of `rows`, all complete rows of the history so far; `rows` only ever grows."""
        new = rows[self._written :]
        if not new:
            return
        while self._waiting:
            name, folder = self._waiting.popitem()
            self._try(name, partial(self._open, name, folder))
        for name, sink in list(self._sinks.items()):
            self._try(name, partial(_write, sink, new))
        self._written = len(rows)

    def _open(self, name: str, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._sinks[name] = resolve(SINKS, name, "sink")(folder)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a package may fail in any way
            self._sinks.pop(name, None)
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            with suppress(OSError):
                print(f"{self._title}: {name} shows no more rows ({reason}); training goes on", flush=True)


def require_sinks(names: Sequence[str]) -> None:
    """Check that each of these sinks can be used here.

    Raises:
        ConfigError: an unknown sink, or its package is missing or broken.
    """
    for name in names:
        require(SINKS, name, "sink for live curves")
        package = resolve(SINKS, name, "sink for live curves").package
        try:
            import_module(package)
        except Exception as error:  # a module can fail in any way while it is imported
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            remedy = f"{command}, or leave" if (command := install_command(package)) else "leave"
            raise ConfigError(
                f"curves cannot be shown by {name} ({reason}); {remedy} {name} out of --live and ACF_LIVE"
            ) from None


def _write(sink: Sink, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        sink.write(row)
    sink.flush()
