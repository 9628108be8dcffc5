"""What the settings of every analysis have, and what the engines have to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from acf.settings.section import Section


def rising_from_zero(values: list[float]) -> list[float]:
    """Return the values if they begin with 0 and rise.

    Raises:
        ValueError: they do not.
    """
    if values[0] != 0 or any(one >= other for one, other in pairwise(values)):
        raise ValueError("has to begin with 0 and to rise")
    return values


class AnalysisSection(Section):
    """Settings of one analysis, and what the engines have to know of it."""

    every_seed: ClassVar[bool] = False
    """Whether the models of all seeds are analysed, or of each variant that of the first."""
    has_picture: ClassVar[bool] = False
    """Whether it writes a picture beside its numbers."""
    reads_labels: ClassVar[bool] = False
    """Whether it reads the labels of the experiment's data set."""

    @classmethod
    def output_names(cls, name: str) -> list[str]:
        """Return the names of the files that the analysis `name` writes."""
        return [f"{name}.json", f"{name}.png"] if cls.has_picture else [f"{name}.json"]

    @property
    def images_at_once(self) -> int | None:
        """Number of images that pass through the flow together, at most; None for evaluation's batches."""
        return None

    @property
    def other_datasets(self) -> tuple[str, ...]:
        """Data sets that it reads beside the experiment's own."""
        return ()

    def outside(self, shape: Sequence[int]) -> Mapping[str, str]:
        """Return what it depends on beside settings, data, model and code, by name: hashes and versions.

        Args:
            shape: (C, H, W) of an image.
        """
        return {}
