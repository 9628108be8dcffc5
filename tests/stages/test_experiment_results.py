"""What a variant is compared with."""

from pathlib import Path

import pytest
import yaml

from acf.settings.params import Params
from acf.stages.experiment_results import bases

ROOT = Path(__file__).parents[2]
SINKHORN = {"attention": {"kind": "sinkhorn"}}
VARIANTS = {
    "attentive": {**SINKHORN, "idim": 24},
    "plain": {},
    "dense": {"branch": "dense"},
    "dense-attentive": {"branch": "dense", **SINKHORN, "dense": {"growth": 16}},
    "elu": {"activation": "elu"},
    "elu-attentive-dense": {"branch": "dense", "activation": "elu", **SINKHORN},
}


@pytest.fixture
def params(tmp_path: Path) -> Params:
    study = yaml.safe_load((ROOT / "params.yaml").read_text())
    study["variants"] = {name: {"model": model} for name, model in VARIANTS.items()}
    study["experiments"] = {"digits": study["experiments"]["digits"] | {"variants": {name: {} for name in VARIANTS}}}
    study["experiments"]["digits"]["variants"]["attentive"] = {"model": {"blocks": [6], "fc_width": 32}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return Params(tmp_path / "params.yaml")


def test_attention_is_compared_with_the_same_flow_without_and_other_flows_with_the_first(params: Params) -> None:
    assert bases(params, "digits") == {
        "attentive": "plain",
        "plain": None,
        "dense": "plain",
        "dense-attentive": "dense",
        "elu": "plain",
        "elu-attentive-dense": None,
    }


def test_flows_of_another_task_are_no_bases() -> None:
    found = bases(Params(ROOT / "params.yaml"), "digits-hybrid")
    assert found == {"resflow": None, "acf-sinkhorn": "resflow", "classifier": None}
