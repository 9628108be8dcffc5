"""The section on Fréchet distances: what it says, from invented numbers."""

from typing import Any

import pytest
from pydantic import ValidationError

from acf.reporting.page_parts import AnalysedModel
from acf.reporting.sections.frechet_section import Frechet, over_seeds, section_of
from acf.settings.params import Run
from tests.reporting.conftest import FOUND


def model(variant: str, distance: float, seed: int = 0, **other: Any) -> AnalysedModel[Frechet]:
    found = Frechet.model_validate(FOUND["frechet"] | {"distance": distance} | other)
    return AnalysedModel(Run("digits", variant, seed), found, {})


def test_distances_are_compared_with_the_floor_and_the_base() -> None:
    analysed = {"resflow": [model("resflow", 0.41)], "acf-l2": [model("acf-l2", 0.61)], "acf-dot": []}
    found = section_of(analysed, {"resflow": None, "acf-l2": "resflow", "acf-dot": "resflow"}, {})
    assert "resflow are nearest to the test images: 0.410 ± 0.020" in found.sentences[0]
    assert "training images are at 0.110 ± 0.010, 3.7 times as near" in found.sentences[0]
    assert found.sentences[1] == "The samples of acf-l2 are farther by 0.200 ± 0.028 than those of resflow."
    assert found.sentences[2] == "FID is not available: these images have 1 channel."
    assert found.tables[0].rows[1:] == [
        ["resflow", "0.410 ± 0.020", "not available"],
        ["acf-l2", "0.610 ± 0.020", "not available"],
    ]
    near = section_of(
        {"resflow": [model("resflow", 0.13)], "acf-l2": [model("acf-l2", 0.15)]}, {"acf-l2": "resflow"}, {}
    )
    assert "not apart by more than 3 standard errors" in near.sentences[0]
    assert near.sentences[1].startswith("acf-l2 and its base resflow are not apart")


def test_the_error_over_seeds_is_no_less_than_that_of_the_test_images() -> None:
    assert over_seeds([model("resflow", 0.4), model("resflow", 0.4, 1)]) == pytest.approx((0.4, 0.02))
    assert over_seeds([model("resflow", 0.3), model("resflow", 0.5, 1)]) == pytest.approx((0.4, 0.1))
    found = section_of({"resflow": [model("resflow", 0.3), model("resflow", 0.5, 1)]}, {}, {})
    assert found.tables[0].rows[1] == ["resflow", "0.40 ± 0.10", "0.3 to 0.5", "not available"]


def test_an_fid_is_shown_and_one_without_a_reason_is_refused() -> None:
    fid = {"fid": 46.37, "fid_reason": None}
    analysed = {"resflow": [model("resflow", 0.4, **fid)], "acf-l2": [model("acf-l2", 0.4)]}
    found = section_of(analysed, {}, {})
    assert [row[-1] for row in found.tables[0].rows] == ["—", "46.4", "not available"]
    assert found.sentences[-1] == "FID is not available of acf-l2: these images have 1 channel."
    with pytest.raises(ValidationError, match="either an FID or a reason"):
        model("resflow", 0.4, fid=None, fid_reason=None)
