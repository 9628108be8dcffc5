"""How figures look: one look per variant, which eyes of all kinds and a printer can tell apart."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from acf.reporting.style import DASHES, MARKERS, PALETTE, draw_figure, looks
from acf.settings.params import Params
from tests.two_cores import SMALL

ROOT = Path(__file__).parents[2]

# Linear RGB as people see it without the cones for long, medium and short waves: Machado, Oliveira and Fernandes,
# "A physiologically-based model for simulation of color vision deficiency", 2009, severity 1.
EYES = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of #rrggbb."""
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Coordinates in which distances are near to how different colours look (Ottosson 2020)."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    lab.append([0.0259040371, 0.7827717662, -0.8086757660])
    return np.array(lab) @ np.cbrt(np.array(cones) @ rgb)


@pytest.mark.parametrize("eye", EYES)
def test_colours_can_be_told_apart(eye):
    seen = [oklab(np.clip(np.array(EYES[eye]) @ linear(colour), 0, 1)) for colour in PALETTE]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 0.1  # 0.02 is just seen


def test_colours_stand_out_from_white():
    for colour in PALETTE:
        assert 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3


def test_variants_can_be_told_apart_in_grey():
    variants = list(Params(ROOT / "params.yaml").raw["variants"])
    assert len({(look.marker, look.dashes) for look in looks(variants).values()}) == len(variants) > 10
    assert len({look.marker for look in looks(variants).values()}) == 10


@pytest.mark.parametrize("experiment", SMALL)
def test_variants_that_are_drawn_together_share_no_colour_that_they_need_not_share(experiment):
    """There are fewer colours than variants, whose order in params.yaml decides which of them share one.

    Where an experiment has more variants than there are colours, those that share one have another marker and line.
    """
    params = Params(ROOT / "params.yaml")
    drawn = looks(list(params.raw["variants"]))
    together = [drawn[variant] for variant in params.variants(experiment)]
    assert len({look.colour for look in together}) == min(len(together), len(PALETTE))
    for one, other in combinations(together, 2):
        if one.colour == other.colour:
            assert one.marker != other.marker
            assert one.dashes != other.dashes


def test_many_variants_have_a_look_each():
    assert len(set(looks([f"v{i}" for i in range(100)]).values())) == 100
    # As many as combinations of markers and dashes can be told apart in grey, whatever the number of colours.
    assert len({(look.marker, look.dashes) for look in looks([f"v{i}" for i in range(50)]).values()}) == 50
    assert len(MARKERS) * len(DASHES) == 50


def test_more_variants_leave_the_looks_of_the_others():
    few, many = looks(["resflow", "acf-l2"]), looks(["resflow", "acf-l2", "acf-dot"])
    assert few.items() <= many.items()


def drawn(name, labels):
    def draw(axes):
        for label, look in labels.items():
            axes.plot([0, 1], [1, 0], label=label, **(look.line | look.points))
        axes.set(xlabel="steps")

    return draw_figure(name, "lines", "", 3.0, draw)


def test_a_drawing_is_the_same_each_time_and_has_its_text_as_text():
    labels = looks(["resflow", "acf-l2"])
    first, second = drawn("lines", labels), drawn("lines", labels)
    assert first == second
    svg = first.svg.decode()
    assert re.search(r"<text[^>]*>acf-l2</text>", svg)
    assert "<dc:date>" not in svg
    assert PALETTE[1] in svg


def test_a_long_legend_has_room():
    many = drawn("many", looks([f"a-variant-with-a-very-long-name-{i}" for i in range(20)]))
    few = drawn("few", looks(["resflow"]))
    height = [float(re.search(r'height="([\d.]+)pt"', figure.svg.decode())[1]) for figure in (few, many)]
    assert height[1] > height[0] + 10 * 72 * 0.2
