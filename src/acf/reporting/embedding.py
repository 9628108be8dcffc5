"""The figures of a page within the page, so that it needs no other file and stays small enough to be sent."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image

from acf.reporting.page_parts import Figure

PAGE_LIMIT = 5_000_000
"""Bytes that a page may have."""
FIGURES_LIMIT = 4_200_000
"""Bytes of a page that its figures may have; the rest is for tables and text."""
LARGEST_DRAWING = 200_000
"""Bytes of an SVG file above which the PNG file is embedded, if it is smaller."""


class Step(NamedTuple):
    """How much pictures are reduced: the longer side in pixels, and the quality of WebP, of 100."""

    side: int
    quality: int


STEPS = (Step(1600, 90), Step(1024, 85), Step(768, 80), Step(512, 75), Step(384, 65), Step(256, 50), Step(128, 40))


class Embedded(NamedTuple):
    """What a page has of its figures.

    Attributes:
        sources: the content of each figure by its name, as a data URI; "" where it does not fit.
        note: what was reduced, a sentence; "" if nothing was.
    """

    sources: dict[str, str]
    note: str


def embed(figures: Iterable[Figure]) -> Embedded:
    """Return the figures as data URIs of at most `FIGURES_LIMIT` bytes: drawings as SVG or PNG, pictures as PNG.

    If that is too much, pictures that gain by it are reduced and stored as WebP, in steps until all fit.
    """
    figures = list(figures)
    drawings = {figure.name: _drawing(figure) for figure in figures if figure.svg is not None}
    pictures = [figure for figure in figures if figure.svg is None]
    room = FIGURES_LIMIT - _size(drawings.values())
    whole = {figure.name: _uri("png", figure.png) for figure in pictures}
    if _size(whole.values()) <= room:
        return Embedded(drawings | whole, "")
    for step in STEPS:
        smaller = {name: min(uri, _reduced(png, step), key=len) for name, uri, png in _named(pictures, whole)}
        if _size(smaller.values()) <= room:
            changed = sum(smaller[name] != whole[name] for name in whole)
            text = (
                f"{changed} of {len(whole)} pictures are shown reduced, to at most {step.side} pixels a side, so that "
            )
            return Embedded(drawings | smaller, f"{text}this page stays below 5 MB; the files in figures/ are not.")
    text = "The pictures are too many for a page below 5 MB, and stand in the folder figures/ beside it."
    return Embedded(drawings | dict.fromkeys(whole, ""), text)


def data_uri(kind: str, content: bytes) -> str:
    """Return the content of a file of the media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _named(pictures: Sequence[Figure], whole: dict[str, str]) -> list[tuple[str, str, bytes]]:
    return [(figure.name, whole[figure.name], figure.png) for figure in pictures]


def _uri(kind: str, content: bytes) -> str:
    return data_uri(f"image/{kind}", content)


def _drawing(figure: Figure) -> str:
    svg = figure.svg or b""
    if len(svg) <= max(LARGEST_DRAWING, len(figure.png)):
        return _uri("svg+xml", svg)
    return _uri("png", figure.png)


def _reduced(png: bytes, step: Step) -> str:
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((step.side, step.side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, format="WEBP", quality=step.quality, method=4)
    return _uri("webp", content.getvalue())


def _size(uris: Iterable[str]) -> int:
    return sum(map(len, uris))
