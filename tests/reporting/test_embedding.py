"""A page holds its figures and stays below 5 MB, whatever they are."""

import base64
import io

import numpy as np
from PIL import Image

from acf.reporting.embedding import FIGURES_LIMIT, LARGEST_DRAWING, PAGE_LIMIT, embed
from acf.reporting.page_parts import Figure


def picture(name, side, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return Figure(name, name, "", content.getvalue())


def opened(uri):
    kind, _, content = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def test_small_pictures_are_embedded_bit_by_bit():
    figure = picture("samples", 40)
    found = embed([figure])
    assert base64.b64decode(found.sources["samples"].partition(",")[2]) == figure.png
    assert found.note == ""


def test_many_large_pictures_are_reduced_until_they_fit(monkeypatch):
    assert FIGURES_LIMIT < PAGE_LIMIT == 5_000_000
    monkeypatch.setattr("acf.reporting.embedding.FIGURES_LIMIT", 200_000)
    found = embed([picture(f"samples-{i}", 300, i) for i in range(4)] + [picture("small", 20)])
    assert sum(map(len, found.sources.values())) <= 200_000
    for name, uri in found.sources.items():
        kind, image = opened(uri)
        assert kind == ("data:image/png" if name == "small" else "data:image/webp")
        assert max(image.size) >= (20 if name == "small" else 200)
        assert len(set(image.convert("RGB").tobytes())) > 100
    assert found.note.startswith("4 of 5 pictures are shown reduced")


def test_pictures_that_cannot_fit_stand_beside_the_page(monkeypatch):
    monkeypatch.setattr("acf.reporting.embedding.FIGURES_LIMIT", 5000)
    found = embed([picture(f"samples-{i}", 300, i) for i in range(3)])
    assert set(found.sources.values()) == {""}
    assert "figures/" in found.note


def test_a_drawing_is_embedded_as_svg_unless_its_png_is_smaller():
    png = picture("x", 20).png
    small, large = b"<svg/>", b"<svg>" + b" " * LARGEST_DRAWING + b"</svg>"
    sources = embed([Figure("small", "", "", png, small), Figure("large", "", "", png, large)]).sources
    assert sources["small"].startswith("data:image/svg+xml;base64,")
    assert sources["large"].startswith("data:image/png;base64,")
