"""Sections on interpolation and noise: what they say, of invented numbers, and when they call a difference one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from acf.errors import AcfError
from acf.reporting.page_parts import AnalysedModel, Section
from acf.reporting.sections.interpolation_section import Interpolation
from acf.reporting.sections.interpolation_section import section as on_interpolation
from acf.reporting.sections.noise_section import Noise
from acf.reporting.sections.noise_section import section as on_noise
from acf.reporting.style import looks
from acf.settings.params import Run

BASES = {"resflow": None, "acf-l2": "resflow", "acf-dot": "resflow"}
LOOKS = looks(list(BASES))


def models(make: Callable[[str, int], Any], seeds: int = 1) -> dict[str, list[AnalysedModel[Any]]]:
    return {
        variant: [AnalysedModel(Run("digits", variant, k), make(variant, k), {"neighbours": 1}) for k in range(seeds)]
        for variant in BASES
    }


def paths(variant: str, seed: int) -> Interpolation:
    """Excesses halfway of 1 on average, 0.5 less under acf-l2 on great circles, with what all models share."""
    generator = np.random.default_rng(0)
    ends, shared = generator.normal(2, 1, (20, 2)), generator.normal(1, 0.5, 20)
    own = np.random.default_rng(len(variant)).normal(0, 0.01, 20)
    own -= own.mean()

    def path(gain: float) -> dict[str, Any]:
        middle = ends.mean(1) + shared + own - gain
        bits = np.stack([ends[:, 0], middle, ends[:, 1]], axis=1)
        return {"t": [0.0, 0.5, 1.0], "bits_per_dim": bits.tolist(), "outside": 0.02}

    gain = 0.5 * (variant == "acf-l2")
    found = {"linear": path(0), "spherical": path(gain), "round_trip": 1e-4, "inverse_bound": 2e-3}
    return Interpolation.model_validate(found)


def cell(section: Section, table: int, row: int, column: int) -> float:
    text = section.tables[table].rows[row][column]
    return float(text.split(" ±")[0].replace("\N{MINUS SIGN}", "-"))


def error(section: Section, row: int, column: int) -> float:
    return float(section.tables[0].rows[row][column].split("± ")[1])


def test_excess_halfway_is_paired_over_paths() -> None:
    section = on_interpolation.section(models(paths), BASES, LOOKS)
    said = " ".join(section.sentences)
    expected = paths("resflow", 0).middle("spherical")
    assert cell(section, 0, 0, 2) == pytest.approx(expected.mean(), abs=0.01)
    assert cell(section, 0, 1, 3) == pytest.approx(-0.5, abs=0.001)
    assert error(section, 1, 3) < 0.01 < error(section, 1, 2)
    assert "The excess on great circles of acf-l2 is 0.50" in said
    assert "bits/dim lower than that of resflow." in said
    assert "The excess on straight lines of acf-l2 does not differ from that of resflow beyond the error" in said
    assert "20 pairs of test images, of one training each" in said
    assert "2.0%" in " ".join(section.notes)


def test_several_seeds_have_one_error_and_the_pictures_of_the_first() -> None:
    analysed = {
        variant: [replace(model, picture=f"seed {model.run.seed}".encode()) for model in trained]
        for variant, trained in models(paths, seeds=3).items()
    }
    section = on_interpolation.section(analysed, BASES, LOOKS)
    assert "20 pairs of test images and over the trainings of 3 seeds" in " ".join(section.sentences)
    pictures = {figure.name: figure.png for figure in section.figures if figure.png.startswith(b"seed")}
    assert pictures == {f"interpolation-{variant}": b"seed 0" for variant in BASES}
    assert {(pair.seeds, pair.base_seeds) for pair in section.pairs} == {(3, 3)}


def test_the_middle_of_an_even_number_of_points() -> None:
    path = {"t": [0.0, 1 / 3, 2 / 3, 1.0], "bits_per_dim": [[1.0, 3.0, 5.0, 4.0]] * 2, "outside": 0.0}
    found = Interpolation.model_validate({"linear": path, "spherical": path, "round_trip": 0.0, "inverse_bound": 0.0})
    assert found.middle("linear").tolist() == pytest.approx([1.5, 1.5])  # (3 - 2 + 5 - 3) / 2


def noise(variant: str, seed: int, gain: float = 0.3, images: int = 50, labels: bool = True) -> Noise:
    """A rise of 2 at 0.1 on average, `gain` less under acf-dot."""
    shared = np.random.default_rng(0).normal(2, 0.5, images)
    own = np.random.default_rng([len(variant), seed]).normal(0, 0.02, images)
    own -= own.mean()
    clean = np.random.default_rng(1).normal(2, 1, images)
    hits = (np.arange(images) % 10 < 9 - 2 * (variant == "acf-l2")).astype(int).tolist()
    neighbours = {"train_images": 1500, "latent": [[1] * images, hits], "pixels": [[1] * images] * 2}
    found = {
        "sigmas": [0.0, 0.1],
        "bits_per_dim": [clean.tolist(), (clean + shared + own - gain * (variant == "acf-dot")).tolist()],
        "neighbours": neighbours if labels else None,
    }
    return Noise.model_validate(found)


def test_the_claim_on_noise_is_answered_in_numbers() -> None:
    section = on_noise.section(models(noise), BASES, LOOKS)
    said = " ".join(section.sentences)
    rise = noise("resflow", 0).rise(1)
    assert cell(section, 0, 0, 2) == pytest.approx(rise.mean(), abs=0.01)
    assert "raises bits/dim least under acf-dot" in said
    assert "is ahead" not in said or "acf-dot is ahead of acf-l2" in said
    assert "The rise at 0.1 of acf-dot is 0.30" in said
    assert "bits/dim smaller than that of resflow" in said
    assert "The rise at 0.1 of acf-l2 does not differ from that of resflow beyond the error" in said
    assert "at 0.1, bits/dim rise less than under the base in 1 and more in 0 of 2 variants" in said
    assert cell(section, 1, 1, 2) == pytest.approx(-0.3, abs=0.001)
    assert "The accuracy at 0.1 of acf-l2 is 0.20" in said
    assert "50 test images, of one training each" in said
    assert section.tables[2].rows[-1] == ["pixels, no model", "1.0000 ± 0", "1.0000 ± 0"]
    assert {figure.name for figure in section.figures} == {"noise-likelihood", "noise-neighbours"}


def test_nothing_is_claimed_where_nothing_differs() -> None:
    said = " ".join(on_noise.section(models(lambda v, k: noise(v, k, gain=0.0)), BASES, LOOKS).sentences)
    assert "rise less than under the base in 0 and more in 0 of 2 variants" in said
    assert "which is within the error" in said or "is ahead" not in said


def test_trainings_that_differ_widen_the_error() -> None:
    def scattered(variant: str, seed: int) -> Noise:
        return noise(variant, seed, gain=0.3 + seed)

    alike, apart = (on_noise.section(models(make, seeds=3), BASES, LOOKS) for make in (noise, scattered))
    assert error(apart, 2, 2) > 3 * error(alike, 2, 2)
    said = " ".join(apart.sentences)
    assert "over 50 test images and over the trainings of 3 seeds" in said
    assert "The rise at 0.1 of acf-dot does not differ from that of resflow beyond the error" in said


def test_a_data_set_without_labels_has_no_neighbours() -> None:
    section = on_noise.section(models(lambda v, k: noise(v, k, labels=False)), BASES, LOOKS)
    assert (len(section.tables), len(section.figures)) == (2, 1)
    assert "neighbours" not in " ".join([*section.sentences, *section.notes])


def test_models_of_other_settings_are_not_compared() -> None:
    def mixed(variant: str, seed: int) -> Noise:
        return noise(variant, seed, images=40 if variant == "acf-dot" else 50)

    with pytest.raises(AcfError, match=r"noise of digits/acf-dot/seed0 is of other settings .*; run: acf noise"):
        on_noise.section(models(mixed), BASES, LOOKS)


@pytest.mark.parametrize("part", [on_noise, on_interpolation])
def test_no_models_no_words(part: Any) -> None:
    assert part.section({variant: [] for variant in BASES}, BASES, LOOKS).sentences == ()


def test_a_variant_without_models_is_left_out() -> None:
    present = models(noise)
    present["resflow"] = []
    section = on_noise.section(present, BASES, LOOKS)
    assert [row[0] for row in section.tables[0].rows] == ["acf-l2", "acf-dot"]
    assert "resflow" not in " ".join(section.sentences)


@pytest.mark.parametrize(
    "change",
    [
        {"bits_per_dim": [[1.0, 2.0]]},
        {"bits_per_dim": [[1.0, 2.0], [1.0]]},
        {"bits_per_dim": [[1.0], [2.0]]},
        {"neighbours": {"train_images": 3, "latent": [[1, 0], [2, 0]], "pixels": [[1, 0], [1, 0]]}},
        {"neighbours": {"train_images": 3, "latent": [[1], [1]], "pixels": [[1], [1]]}},
    ],
)
def test_numbers_of_another_form_are_refused(change: dict[str, Any]) -> None:
    sound = {"sigmas": [0.0, 0.1], "bits_per_dim": [[1.0, 2.0], [1.5, 2.5]], "neighbours": None}
    Noise.model_validate(sound)
    with pytest.raises(ValueError, match="Noise"):
        Noise.model_validate(sound | change)
