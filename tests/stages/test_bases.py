"""What variants are compared with: the one that they add one thing to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from acf.settings.params import Params
from acf.stages.bases import Architecture, attentive, bases, bases_of, plain

SECTIONS = ("model", "training", "evaluation", "sampling", "analyses", "reporting")


def params(root: Path, variants: dict[str, dict[str, Any]]) -> Params:
    experiment = {"dataset": "digits", "seeds": [0], "variants": variants} | {section: {} for section in SECTIONS}
    study = {
        "defaults": {section: {} for section in SECTIONS},
        "variants": {name: {} for name in variants},
        "datasets": {"digits": {}},
        "experiments": {"e": experiment},
    }
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return Params(path)


L2 = {"attention": {"kind": "l2"}}
DENSE = {"branch": "dense"}
ELU = {"activation": "elu"}


def test_a_variant_with_attention_has_the_one_without_on_the_same_branch(tmp_path: Path) -> None:
    study = params(
        tmp_path,
        {
            "acf": {"model": L2},
            "acf-deep": {"model": L2 | {"blocks": [3]}},
            "dense-acf": {"model": L2 | DENSE},
            "resflow": {},
            "dense": {"model": DENSE},
        },
    )
    expected = {"acf": "resflow", "acf-deep": "resflow", "dense-acf": "dense", "resflow": None, "dense": None}
    assert bases(study, "e") == expected
    assert attentive(study, "e") == {"acf", "acf-deep", "dense-acf"}


def test_another_task_is_no_base(tmp_path: Path) -> None:
    hybrid = {"task": {"kind": "hybrid"}}
    study = params(tmp_path, {"resflow": {}, "acf": {"model": L2, "training": hybrid}, "heads": {"training": hybrid}})
    assert bases(study, "e") == {"resflow": None, "acf": "heads", "heads": None}


def test_of_several_bases_the_nearest_counts_and_of_those_the_first(tmp_path: Path) -> None:
    """A second plain flow does not become the base of what has nothing of it, in whatever order they stand."""
    study = params(
        tmp_path,
        {
            "resflow": {},
            "resflow-elu": {"model": ELU},
            "resflow-long": {"training": {"steps": 7}},
            "acf": {"model": L2},
            "acf-elu": {"model": L2 | ELU},
            "acf-long": {"model": L2, "training": {"steps": 7}},
            "acf-other": {"model": L2 | {"activation": "clipswish"}},
        },
    )
    assert bases(study, "e") == {
        "resflow": None,
        "resflow-elu": "resflow",
        "resflow-long": "resflow",
        "acf": "resflow",
        "acf-elu": "resflow-elu",
        "acf-long": "resflow-long",
        "acf-other": "resflow",
    }
    others = ["resflow", "resflow-elu", "resflow-long"]
    assert plain(study, "e") == {variant: others for variant in ("acf", "acf-elu", "acf-long", "acf-other")}


@pytest.mark.parametrize("turned", [False, True])
def test_other_blocks_are_compared_with_residual_ones_and_attention_within_its_blocks(turned: bool) -> None:
    def flow(block: str, branch: str = "conv", attention: str = "none") -> Architecture:
        return Architecture("density", block, branch, attention, {})

    found = {
        "resflow": flow("residual"),
        "monotone": flow("monotone"),
        "acf": flow("residual", attention="sinkhorn"),
        "monotone-acf": flow("monotone", attention="sinkhorn"),
        "monotone-dense": flow("monotone", "dense"),
    }
    if turned:
        found = dict(reversed(found.items()))
    expected = {"monotone": "resflow", "acf": "resflow", "monotone-acf": "monotone"}
    assert bases_of(found) == {variant: expected.get(variant) for variant in found}
