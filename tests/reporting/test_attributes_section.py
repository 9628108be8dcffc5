"""The section on attribute arithmetic: what it says of invented numbers, and of data without labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acf.errors import AcfError
from acf.reporting.page_parts import AnalysedModel
from acf.reporting.sections.attributes_section import Attributes, section
from acf.reporting.style import looks
from acf.settings.params import Run

BASES = {"resflow": None, "acf-l2": "resflow"}
LOOKS = looks(list(BASES))


def found(successes: int, images: int = 40) -> Attributes:
    """Of 40 images, so many are taken for the other class at alpha 1; between pixels all are."""

    def moved(ones: int) -> dict[str, Any]:
        hits = [int(i < ones) for i in range(images)]
        distances = [[16.0 + i % 2 for i in range(images)], [20.0 + i % 2 for i in range(images)]]
        return {"taken": [[0] * images, hits], "neighbour": [[0] * images] * 2, "distances": distances, "outside": 0.03}

    arithmetic = {
        **{"alphas": [0.0, 1.0], "train_images": 1500, "classes": 10, "inverse_bound": 2e-3},
        **{"classifier": {"accuracy": 0.9, "se": 0.02}, "latent": moved(successes), "pixels": moved(images)},
    }
    return Attributes.model_validate({"reason": None, "arithmetic": arithmetic})


def models(make: Callable[[str], Attributes]) -> dict[str, list[AnalysedModel[Attributes]]]:
    return {variant: [AnalysedModel(Run("digits", variant, 0), make(variant), {})] for variant in BASES}


def test_shares_are_compared_with_pixels_and_with_the_base() -> None:
    shown = section.section(models(lambda variant: found(36 if variant == "acf-l2" else 12)), BASES, LOOKS)
    said = " ".join(shown.sentences)
    assert "succeed most often under acf-l2: the classifier takes 0.900 ± 0.048" in said
    assert "1.0000 ± 0 of those moved between pixels" in said
    assert "of acf-l2 is 0.600 ± 0.078 higher than that of resflow" in said  # 24 of 40 differ: sqrt(0.6 * 0.4 / 39)
    assert "before they are moved it is 16.500 ± 0.080" in said
    assert [row[0] for row in shown.tables[0].rows] == ["resflow", "acf-l2", "pixels, no model"]
    assert shown.tables[0].rows[0][1:] == ["0.0000 ± 0", "0.300 ± 0.073"]
    assert "0.900 ± 0.020 of all test images" in " ".join(shown.notes)


def test_what_differs_by_chance_is_no_difference() -> None:
    shown = section.section(models(lambda variant: found(13 if variant == "acf-l2" else 12)), BASES, LOOKS)
    assert "of acf-l2 does not differ from that of resflow beyond the error" in " ".join(shown.sentences)


def test_a_data_set_without_labels_says_so() -> None:
    none = Attributes(arithmetic=None, reason="the data set has no labels")
    shown = section.section(models(lambda _: none), BASES, LOOKS)
    assert shown.notes == ["There is no attribute arithmetic: the data set has no labels."]
    assert (shown.sentences, shown.tables, shown.figures) == ((), (), ())
    with pytest.raises(AcfError, match="of other settings"):
        section.section(models(lambda variant: none if variant == "resflow" else found(3)), BASES, LOOKS)


def test_no_models_no_words() -> None:
    assert section.section({variant: [] for variant in BASES}, BASES, LOOKS).sentences == ()


def test_numbers_of_another_form_are_refused() -> None:
    sound = found(3).model_dump()
    Attributes.model_validate(sound)
    for change in ({"reason": "none"}, {"arithmetic": None}, {"arithmetic": sound["arithmetic"] | {"alphas": [0.0]}}):
        with pytest.raises(ValueError, match="Attributes"):
            Attributes.model_validate(sound | change)
    short = {**sound["arithmetic"], "latent": {**sound["arithmetic"]["latent"], "taken": [[0], [1]]}}
    with pytest.raises(ValueError, match="different or of too few"):
        Attributes.model_validate(sound | {"arithmetic": short})


def test_the_alpha_nearest_to_one_is_that_of_the_sentences() -> None:
    one = found(3).moved
    assert np.isclose(one.alphas[one.whole], 1)
