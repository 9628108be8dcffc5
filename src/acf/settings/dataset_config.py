"""Settings of a data set: what models see of it, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

from pydantic import Field

from acf.errors import AcfError, shown
from acf.registry import DATASETS, TABLES, datasets, resolve
from acf.settings.section import INTEGRAL, Levels, Section


class DatasetConfig(Section):
    """What models see of a data set."""

    source: str | None = Field(
        default=None,
        description="Data set whose images these are, for a name that is none itself: `fashion-mnist-14: {source: "
        "fashion-mnist, average: 2}`. The source is a key under `datasets` too, and only it is fetched and prepared. "
        "Results on what is made of it are not comparable with results on the source, so they go by a name of their "
        "own, which begins with the source's and a dash. `null` for the data set of that name.",
    )
    average: Annotated[int, Field(ge=1, le=256), INTEGRAL] = Field(
        default=1,
        description="Side k of the squares of pixels of which models see the mean, rounded to the nearest grey level, "
        "halves up: floor((sum + floor(k^2 / 2)) / k^2), taken when images are loaded. There are as many levels as "
        "before, and `levels` are taken of the result. It must divide height and width. 1 for the pixels "
        "themselves; other numbers need a `source`. This project's choice.",
    )
    levels: Levels | None = Field(
        default=None,
        description="Number of grey levels that models see, which must divide the number stored; `null` for as many as "
        "are stored. 32 levels are the 5 bits that arXiv 1906.02735 uses for CelebA-HQ 256.",
    )

    @property
    def made(self) -> str:
        """What is made of the images of `source`, in sentences for people; "" where there is none."""
        if self.source is None:
            return ""
        k = self.average
        means = f"every value the mean of {k} x {k} pixels, rounded to the nearest grey level, halves up"
        steps = [
            *([means] if k > 1 else []),
            *([f"reduced to {self.levels} grey levels"] if self.levels is not None else []),
        ]
        what = ", then ".join(steps)
        return (
            f"Images of {self.source}, {what}. Results are not comparable with results on {self.source}, published "
            "ones included."
        )


def dataset_fault(name: str, config: DatasetConfig, listed: Iterable[str]) -> tuple[tuple[str, ...], str] | None:
    """Return what is wrong with a data set of params.yaml: the key below it, if it is one, and a text; None if nothing.

    Args:
        name: its key under `datasets`.
        config: its settings.
        listed: all keys under `datasets`.
    """
    source = config.source
    if source is not None:
        sources = [key for key in listed if key in DATASETS]
        if name in datasets():
            return ("source",), f"{name} is a data set itself; give what is made of another one a new name"
        if source not in sources:
            known = ", ".join(sources) or "none"
            return ("source",), f"no data set of images {shown(source)}; `datasets` has: {known}"
        if not name.startswith(f"{source}-"):
            return (), f"a name of what is made of {source} begins with {source}-, so that nobody takes it for another"
        if config.average == 1 and config.levels is None:
            return (), f"these are the very images of {source}; give `average` or `levels`, or name {source} instead"
        if fault := _average_fault(source, config.average):
            return ("average",), fault
    elif name not in datasets():
        return (), f"unknown data set; known: {', '.join(sorted(datasets()))}, and what names one of them as its source"
    elif name in TABLES and config.levels is not None:
        return ("levels",), "a table has no grey levels; leave it out"
    elif name in TABLES and config.average > 1:
        return ("average",), "a table has no pixels; leave it out"
    elif config.average > 1:
        return ("average",), f"what is averaged needs a name of its own and `source: {name}`, as it is another data set"
    return None


def _average_fault(source: str, average: int) -> str | None:
    """Return what is wrong with averaging the images of a registered data set; None if nothing, or if it is broken."""
    shape = None
    if average > 1:
        with suppress(AcfError):  # a data set that is broken harms no other; whoever uses it is told
            shape = getattr(resolve(datasets(), source, "data set"), "shape", None)
    if isinstance(shape, tuple) and any(side % average for side in shape[1:]):
        size = "x".join(map(str, shape[1:]))
        return f"{average} does not divide height and width of the images of {source}, {size}"
    return None
