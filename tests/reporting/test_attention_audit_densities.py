"""The sections of the report on attention, audits and likelihoods: what their sentences and tables say."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from acf.errors import AcfError
from acf.reporting.analysis_files import part_of, require_found
from acf.reporting.page_parts import AnalysedModel, Section
from acf.reporting.style import looks
from acf.settings.params import Run
from tests.reporting.conftest import FOUND


def section_of(
    name: str, found: dict[str, dict[str, Any] | None], bases: dict[str, str | None] | None = None
) -> Section:
    """The section of what was found of each variant; None where a variant has not been analysed."""
    part = part_of(name)
    analysed = {
        variant: [AnalysedModel(Run("digits", variant, 0), part.form.model_validate(it), {})] if it else []
        for variant, it in found.items()
    }
    return part.section(analysed, bases or dict.fromkeys(found), looks(list(found)))


def changed(name: str, **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FOUND[name]), **values}


def test_attention_is_said_to_be_local_selective_or_close_to_a_mean() -> None:
    even, local = copy.deepcopy(FOUND["attention"]), copy.deepcopy(FOUND["attention"])
    block = even["blocks"][0]
    block["heads"] = [
        {"distance": block["even_distance"], "distance_se": None, "entropy": block["even_entropy"], "entropy_se": None}
    ]
    local["blocks"][0]["heads"] = [
        {"distance": 0.1, "distance_se": 0.01, "entropy": 0.2, "entropy_se": 0.02},
        {"distance": 0.0, "distance_se": 0.0, "entropy": 0.0, "entropy_se": 0.0},
    ]
    local["blocks"][0]["maps"] = []
    nothing = changed("attention", pictures=[], blocks=[])
    silent = changed("attention", pictures=[], blocks=[], not_available=["scale 1, block 2"])
    section = section_of("attention", {"plain": nothing, "even": even, "local": local, "silent": silent, "later": None})
    by_variant = {sentence.split(":")[0].split(" ")[0]: sentence for sentence in section.sentences}
    assert "of 1 heads in 1 blocks all close to a mean over tokens; mean distance 100.0 %" in by_variant["even"]
    assert "of 2 heads in 1 blocks all selective, all local, 1 on the query" in by_variant["local"]
    assert "entropy 0.0 % to 14.4 % of what even weights have" in by_variant["local"]
    assert "weights of scale 1, block 2 are not available" in by_variant["silent"]
    assert by_variant["plain"] == "plain has no attention."
    assert [figure.name for figure in section.figures] == [
        "attention-distance",
        "attention-entropy",
        "attention-maps-even",
    ]
    assert [(one.variant, one.name) for one in section.measures] == [("even", "entropy"), ("local", "entropy")]
    assert [one.value for one in section.measures] == pytest.approx([1.0, 0.1 / block["even_entropy"]])
    (table,) = section.tables
    assert [row[:4] for row in table.rows] == [
        ["even", "scale 1, block 2", "2 x 2", "1"],
        ["local", "scale 1, block 2", "2 x 2", "1"],
        ["local", "scale 1, block 2", "2 x 2", "2"],
    ]
    assert table.rows[0][5] == "100.0 %"
    assert table.rows[1][4:] == ["0.100 ± 0.010", "11.7 %", "0.200 ± 0.020", "14.4 %"]


def test_of_flows_without_attention_the_section_says_so() -> None:
    section = section_of("attention", {"a": changed("attention", blocks=[], pictures=[])})
    assert (section.sentences, section.figures) == (["a has no attention."], ())
    assert section_of("attention", {"a": None}).sentences == []


def audited(ratio: float) -> dict[str, Any]:
    found = copy.deepcopy(FOUND["audit"])
    found["blocks"][1] |= {"found": 0.9 * ratio, "ratio": ratio}
    return found


def test_the_audit_names_the_block_that_comes_closest() -> None:
    section = section_of("audit", {"a": audited(0.75), "b": audited(0.8)})
    assert section.sentences[0].startswith(
        "No bound is refuted: of 4 blocks the largest found / bound is 0.8000 (b, scale 1"
    )
    assert [row[5] for row in section.tables[0].rows] == ["0.7500", "0.8000"]
    assert [figure.name for figure in section.figures] == ["audit-ratios", "audit-a", "audit-b"]


def test_slack_and_weight_of_attention_are_said_beside_those_of_other_blocks() -> None:
    attending = {"attention": "l2", "local": 0.09, "weight": 0.25, "dependence": 0.5}
    found = copy.deepcopy(FOUND["audit"])
    found["blocks"][1] |= attending
    section = section_of("audit", {"a": found, "b": FOUND["audit"]})
    said = section.sentences
    assert [(one.variant, one.name, round(one.value, 2)) for one in section.measures] == [
        ("a", "dependence", 0.5),
        ("a", "weight", 0.25),
        ("a", "use", 0.1),
        ("a", "use of others", 0.44),
    ]
    assert [sentence for sentence in said if "blocks with attention" in sentence] == [
        "At test images blocks with attention of a use 10% of their bounds, its other blocks 44%."
    ]
    assert said[-2:] == [
        "The output of attention in a depends on other positions by 0.50 (mean over 1 block, 0.50 to 0.50).",
        "Attention in a brings 25.0% of the spread of the features it is joined with (mean over 1 block).",
    ]
    found["blocks"][0] |= attending
    assert section_of("audit", {"a": found}).sentences[2] == (
        "At test images blocks with attention of a use 10% of their bounds."
    )


def test_a_refuted_bound_comes_first() -> None:
    section = section_of("audit", {"a": audited(0.75), "b": audited(1.2)})
    assert section.sentences[0].startswith("REFUTED: the proven bound 0.9 of b, scale 1, block 2, is wrong")
    assert not any(sentence.startswith("No bound") for sentence in section.sentences)


def test_likelihoods_are_compared_with_the_base() -> None:
    likelier = changed("densities", told_apart={"noise": {"auroc": 0.1, "se": 0.02}}, gap={"value": 0.5, "se": 0.1})
    likelier["sets"]["test"] = {
        "mean": 2.4,
        "se": 0.1,
        "bits_per_dim": [2.31, 2.49],
    }  # 0.41 and 0.39 more than the base
    section = section_of(
        "densities", {"base": FOUND["densities"], "a": likelier, "b": None}, {"base": None, "a": "base"}
    )
    assert section.sentences == [
        "base gives test images 0.10 ± 0.14 bits/dim more than training images, within two standard errors of none.",
        "a gives test images 0.50 ± 0.10 bits/dim more than training images; that is 0.400 ± 0.010 more than of its "
        "base base.",
        "Likelihood tells test images from noise with an AUROC of 0.1000 to 1.0000 over the variants; under a they are "
        "likelier than test images.",
    ]
    assert [row[0] for row in section.tables[0].rows] == ["base", "a"]
    assert section.tables[0].rows[1][-1] == "0.100 ± 0.020"
    assert [figure.name for figure in section.figures] == ["densities-base", "densities-a"]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the numbers of a document are."""
    if isinstance(content, dict | list):
        entries = content.items() if isinstance(content, dict) else enumerate(content)
        return [place for key, value in entries for place in places(value, (*path, key))]
    return [path] if isinstance(content, int | float) else []


@pytest.mark.parametrize("name", ["attention", "audit", "densities"])
def test_a_file_that_holds_no_number_is_not_written(name: str, tmp_path: Path) -> None:
    require_found(name, FOUND[name], tmp_path)
    assert places(FOUND[name])
    for *path, last in places(FOUND[name]):
        for wrong in (math.nan, math.inf, "1", [], True):
            found = json.loads(json.dumps(FOUND[name]))
            part = found
            for key in path:
                part = part[key]
            part[last] = wrong
            with pytest.raises(AcfError):
                require_found(name, found, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"maps": [[[[[0.1, 0.2], [0.3]]]]]}, {"maps": [[[[[0.1]]], [[[0.1]]]]]}, {"queries": [[1]]}]
)
def test_maps_that_cannot_be_drawn_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    found = copy.deepcopy(FOUND["attention"])
    found["blocks"][0] |= wrong
    with pytest.raises(AcfError):
        require_found("attention", found, tmp_path)
