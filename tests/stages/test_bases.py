"""What variants are compared with."""

from pathlib import Path
from typing import Any

import yaml

from acf.settings.params import Params
from acf.stages.bases import attentive, bases, plain, plain_of_other_size, within_branches

ROOT = Path(__file__).parents[2]
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


def test_attention_is_compared_with_the_same_flow_without_and_other_flows_with_the_first(tmp_path: Path) -> None:
    study = params(
        tmp_path,
        {
            "acf": {"model": L2},
            "acf-small": {"model": L2 | {"blocks": [3], "idim": 8, "fc_width": 7}},
            "dense-acf": {"model": L2 | DENSE | {"dense": {"growth": 5}}},
            "resflow": {},
            "dense": {"model": DENSE},
            "elu": {"model": ELU},
            "dense-elu-acf": {"model": L2 | DENSE | ELU},
        },
    )
    assert bases(study, "e") == {
        "acf": "resflow",
        "acf-small": "resflow",
        "dense-acf": "dense",
        "resflow": None,
        "dense": "resflow",
        "elu": "resflow",
        "dense-elu-acf": None,
    }
    assert attentive(study, "e") == {"acf", "acf-small", "dense-acf", "dense-elu-acf"}


def test_attention_in_branches_is_told_from_that_in_blocks_of_its_own(tmp_path: Path) -> None:
    convex = {"attention": {"kind": "l2", "join": "convex"}}
    study = params(tmp_path, {"resflow": {}, "acf": {"model": L2}, "acf-paper": {"model": convex}})
    assert within_branches(study, "e") == {"acf-paper"}


def test_another_task_is_no_base(tmp_path: Path) -> None:
    hybrid = {"task": {"kind": "hybrid"}}
    study = params(tmp_path, {"resflow": {}, "acf": {"model": L2, "training": hybrid}, "heads": {"training": hybrid}})
    assert bases(study, "e") == {"resflow": None, "acf": "heads", "heads": None}


def test_of_several_bases_the_nearest_counts_and_of_those_the_first(tmp_path: Path) -> None:
    """A flow that was trained for longer does not become the base of what was not."""
    study = params(
        tmp_path,
        {
            "resflow": {},
            "resflow-long": {"training": {"steps": 7}},
            "acf": {"model": L2},
            "acf-long": {"model": L2, "training": {"steps": 7}},
            "acf-other": {"model": L2, "training": {"steps": 9}},
            "elu": {"model": ELU},
            "acf-elu": {"model": L2 | ELU},
        },
    )
    assert bases(study, "e") == {
        "resflow": None,
        "resflow-long": "resflow",
        "acf": "resflow",
        "acf-long": "resflow-long",
        "acf-other": "resflow",
        "elu": "resflow",
        "acf-elu": "elu",
    }
    both = ["resflow", "resflow-long"]
    assert plain(study, "e") == {"acf": both, "acf-long": both, "acf-other": both, "acf-elu": ["elu"]}
    assert plain_of_other_size(study, "e") == {
        "acf": ["resflow"],
        "acf-long": ["resflow-long"],
        "acf-other": [],
        "acf-elu": ["elu"],
    }


def test_the_bases_of_the_study_are_flows_without_attention() -> None:
    study = Params(ROOT / "params.yaml")
    for experiment in study.experiments:
        found = bases(study, experiment)
        with_attention = attentive(study, experiment)
        assert all(found[variant] not in {None, *with_attention} for variant in with_attention), experiment
