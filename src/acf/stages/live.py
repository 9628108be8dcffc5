"""Where the curves of a training go while it trains, as the command line says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from acf.settings.params import Run


@dataclass(frozen=True)
class Live:
    """Where the curves of a training are shown while it trains.

    Attributes:
        sinks: names, keys of `acf.registry.SINKS`.
        folder: what has a folder per sink and training; below the project's top folder, unless it is absolute.
    """

    sinks: tuple[str, ...] = ()
    folder: Path = Path(".acf/live")

    @classmethod
    def of(cls, sinks: str, folder: Path) -> Self:
        """Return what the options of the command line say; `sinks` are names with commas between them."""
        return cls(tuple(dict.fromkeys(filter(None, (name.strip() for name in sinks.split(","))))), folder)

    @property
    def options(self) -> list[str]:
        """The options of the command line that say this."""
        return ["--live", ",".join(self.sinks), "--live-folder", str(self.folder)]

    def folders(self, run: Run, recipe: str, root: Path) -> dict[str, Path]:
        """Return the folder of each sink for a training, which is one of its own for every recipe."""
        return {name: root / self.folder / name / run.folder / recipe for name in self.sinks}


NOT_LIVE = Live()
