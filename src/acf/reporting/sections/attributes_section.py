"""The report's section on attribute arithmetic: images moved from one class to another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from acf.reporting.page_parts import Analysed, AnalysisPart, Figure, Section, Table, pictures
from acf.reporting.paired_rows import PairedRows, against_base, mean_text, on_errors, paired_rows, require_alike
from acf.reporting.schemas import NotNegative, Stored
from acf.reporting.style import BASELINE_COLOUR, Looks, draw_figure
from acf.reporting.wording import scientific, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Hit = Annotated[int, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
TITLE = "Attribute arithmetic"
PIXELS = "pixels, no model"
SHARE = ("lower", "higher", "")
QUANTITIES = {
    "taken": "share of moved images that the classifier takes for the class they were moved to",
    "neighbour": "share of moved images whose nearest training image is of that class",
    "distances": "mean distance to the nearest training image, in grey levels",
}


class Classifier(Stored):
    """The share of all test images that it gives their class."""

    accuracy: Share
    se: NotNegative


class Moved(Stored):
    """What the judges say of the images in one space, by alpha and image."""

    taken: list[list[Hit]]
    neighbour: list[list[Hit]]
    distances: list[list[NotNegative]]
    outside: Share


class Arithmetic(Stored):
    """Images moved in both spaces."""

    alphas: list[NotNegative] = Field(min_length=2)
    train_images: PositiveInt
    classes: int = Field(ge=2)
    classifier: Classifier
    inverse_bound: NotNegative
    latent: Moved
    pixels: Moved

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        tables = [getattr(moved, name) for moved in (self.latent, self.pixels) for name in QUANTITIES]
        if any(len(table) != len(self.alphas) for table in tables):
            raise ValueError("there is not one list of images for each alpha")
        if len({len(values) for table in tables for values in table}) > 1 or self.images < 2:
            raise ValueError("the lists are of different or of too few images")
        return self

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.latent.taken[0])

    @property
    def whole(self) -> int:
        """Place of the alpha that is nearest to 1, the first of them."""
        return min(range(len(self.alphas)), key=lambda i: abs(self.alphas[i] - 1))

    def values(self, quantity: str, i: int, space: str = "latent") -> np.ndarray:
        """Return a quantity of each image at the i-th alpha, (N,)."""
        return np.asarray(getattr(getattr(self, space), quantity)[i], dtype=float)


class Attributes(Stored):
    """What the analysis found of one model."""

    arithmetic: Arithmetic | None
    reason: str | None

    @model_validator(mode="after")
    def _numbers_or_a_reason(self) -> Self:
        if (self.arithmetic is None) != bool(self.reason):
            raise ValueError("there is either arithmetic or a reason why there is none")
        return self

    @property
    def moved(self) -> Arithmetic:
        """The numbers, of which the section has made sure."""
        assert self.arithmetic is not None
        return self.arithmetic


def section_of(analysed: Analysed[Attributes], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return how many images arrive at the class that they are moved to, how near to data they are, and pictures."""
    found = [model.found for models in analysed.values() for model in models]
    if not found:
        return Section("attributes", TITLE)
    require_alike(
        "attributes",
        analysed,
        lambda one: one.arithmetic and (one.moved.images, one.moved.train_images, *one.moved.alphas),
    )
    if found[0].arithmetic is None:
        return Section("attributes", TITLE, notes=[f"There is no attribute arithmetic: {found[0].reason}."])
    first = found[0].arithmetic
    places = range(len(first.alphas))
    rows = {
        quantity: [paired_rows(analysed, bases, partial(_values, quantity=quantity, i=i)) for i in places]
        for quantity in QUANTITIES
    }
    curves = ["taken", "distances"]
    return Section(
        "attributes",
        TITLE,
        sentences=_sentences(analysed, bases, first),
        tables=[_table(rows[quantity], first, quantity) for quantity in QUANTITIES],
        figures=[
            *(_curve(looks, rows[quantity], first, quantity) for quantity in curves),
            *pictures(
                analysed,
                "attributes",
                "test images moved to other classes",
                "alpha rises from the left; moves in latent space above the same between pixels",
            ),
        ],
        notes=_notes([one.moved for one in found]),
    )


def _values(found: Attributes, quantity: str, i: int) -> np.ndarray:
    return found.moved.values(quantity, i)


def _sentences(analysed: Analysed[Attributes], bases: Mapping[str, str | None], first: Arithmetic) -> list[str]:
    """Return what became of the images at the alpha nearest to 1, against the baseline and against the bases."""
    i, alpha = first.whole, first.alphas[first.whole]
    taken, near, distance = (
        paired_rows(analysed, bases, partial(_values, quantity=quantity, i=i)) for quantity in QUANTITIES
    )
    best = max(taken.rows, key=lambda variant: taken.mean(variant).mean)
    sentences = [
        f"Moves of alpha = {alpha:g} succeed most often under {best}: the classifier takes "
        f"{mean_text(taken.mean(best))} of its images for the class that they were moved to, and "
        f"{_of_pixels(first, 'taken', i)} of those moved between pixels.",
        f"The nearest training image is of that class for {mean_text(near.mean(best))} and "
        f"{_of_pixels(first, 'neighbour', i)} of them, at a distance of {mean_text(distance.mean(best))} and "
        f"{_of_pixels(first, 'distances', i)} grey levels; before they are moved it is "
        f"{_of_pixels(first, 'distances', 0)}.",
        *(against_base(v, taken, f"share taken for the other class at {alpha:g}", SHARE) for v in taken.bases),
    ]
    return [*sentences, on_errors(analysed, f"{first.images} test images", taken.comparisons)]


def _of_pixels(first: Arithmetic, quantity: str, i: int) -> str:
    """Return the mean between pixels, which no model and no seed has a part in."""
    values = first.values(quantity, i, "pixels")
    return with_error(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5)


def _table(rows: list[PairedRows], first: Arithmetic, quantity: str) -> Table:
    headings = ["model", *(f"alpha = {alpha:g}" for alpha in first.alphas)]
    texts = [[variant, *(mean_text(found.mean(variant)) for found in rows)] for variant in rows[0].rows]
    texts.append([PIXELS, *(_of_pixels(first, quantity, i) for i in range(len(rows)))])
    return Table(headings, texts, f"{QUANTITIES[quantity]}; ± one standard error")


def _curve(looks: Looks, rows: list[PairedRows], first: Arithmetic, quantity: str) -> Figure:
    def draw(axes: Axes) -> None:
        for variant in rows[0].rows:
            found, look = [one.mean(variant) for one in rows], looks[variant]
            means, errors = [one.mean for one in found], [one.se for one in found]
            axes.errorbar(first.alphas, means, errors, ms=4, lw=1.2, label=variant, **look.marked_line)
        pixels = [float(first.values(quantity, i, "pixels").mean()) for i in range(len(rows))]
        axes.plot(first.alphas, pixels, "--", color=BASELINE_COLOUR, label=PIXELS)
        axes.set(xlabel="alpha", ylabel=label)

    label = "share taken for the other class" if quantity == "taken" else "distance to the nearest"
    alt = f"{QUANTITIES[quantity]}, against alpha, by model"
    return draw_figure(f"attributes-{quantity}", alt, f"{QUANTITIES[quantity]}, ± one standard error", 3.4, draw)


def _notes(found: list[Arithmetic]) -> list[str]:
    first = found[0]
    outside = max(one.latent.outside for one in found)
    return [
        "A test image x of class a becomes f^-1(f(x) + alpha (mean of f over class b - mean of f over class a)), and "
        "between pixels x + alpha (mean of class b - mean of class a). Means are over "
        f"{first.train_images:,} training images of {first.classes} classes.",
        "The classifier is a multinomial logistic regression on the pixels of these training images; it gives "
        f"{with_error(first.classifier.accuracy, first.classifier.se)} of all test images their class. As its logits "
        "are linear in the pixels, a move between pixels shifts them by the same amount for every image, which suits "
        "it, whether or not the result looks like an image; the nearest training image is a judge of another kind.",
        f"{outside:.1%} of the values that came from latent space and {first.pixels.outside:.1%} of those between "
        "pixels left the range of pixels, and were put on its border. Each block was inverted with a proven error of "
        f"at most {scientific(max(one.inverse_bound for one in found))}.",
    ]


section = AnalysisPart(Attributes, section_of)
