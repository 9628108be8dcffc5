"""Starting values: taken once, known to the host afterwards; under torch.distributed those of all ranks' batches."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import acf
from acf.flows.actnorm import ActNorm
from acf.registry import ATTENTIONS
from tests.building_blocks.layers import make_attention
from tests.building_blocks.noise import noise
from tests.building_blocks.ranks import in_every_rank, needs_gloo

CONFIG: dict[str, Any] = {
    "shape": (1, 4, 4),
    "blocks": [2],
    "idim": 4,
    "fc_width": 4,
    "fc_blocks": 1,
    "attention": {"kind": "sinkhorn", "heads": 2},
}
SPLITS = {"equal": 6, "unequal": 9, "one rank empty": 12}
"""Numbers of the 12 samples that rank 0 gets."""
X = noise(12, 4, 3, 3)


def layers() -> dict[str, torch.nn.Module]:
    attentions = {kind: make_attention(kind, 4, 2).double() for kind in ATTENTIONS}
    return {"actnorm": ActNorm((4, 3, 3)).double(), "per value": ActNorm((4, 3, 3), True).double(), **attentions}


def started(rank: int) -> dict[str, Any]:
    """The state of every layer after a first batch, split in several ways, and of a flow after three steps."""
    found: dict[str, Any] = {}
    for split, count in SPLITS.items():
        for name, layer in layers().items():
            layer.train()(X[:count] if rank == 0 else X[count:])
            found[f"{name}, {split}"] = layer.state_dict()
    bad = X.clone()
    bad[0, 0, 0, 0] = torch.nan  # on rank 0 alone
    layer = ActNorm((4, 3, 3)).double().train()
    try:
        layer((bad if rank == 0 else X)[:6])
    except ValueError as error:
        found["refused"] = str(error)
    found["flow"] = trained(rank)
    return found


def trained(rank: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    flow = acf.build(CONFIG).train()
    model = DistributedDataParallel(flow)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    torch.manual_seed(rank)
    for step in range(3):
        x = torch.rand(4, 1, 4, 4)
        z, log_abs_det = model(x[: 0 if step == 0 and rank == 1 else 4])
        loss = -(flow.base_log_prob(z) + log_abs_det).sum() / 4
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        flow.renormalise()
    return flow.state_dict()


@needs_gloo
def test_ranks_start_from_all_batches_and_stay_equal(tmp_path: Path) -> None:
    first, second = in_every_rank(started, tmp_path)
    assert "first batch" in first["refused"] == second["refused"]
    for name in first:
        if name == "refused":
            continue
        for key, value in first[name].items():
            assert torch.equal(value, second[name][key]), (name, key)
            assert value.isfinite().all()
    for name, layer in layers().items():
        layer.train()(X)
        for split in SPLITS:
            for key, value in layer.state_dict().items():
                torch.testing.assert_close(first[f"{name}, {split}"][key], value, rtol=1e-12, atol=1e-12)


def averaged(layer: torch.nn.Module) -> torch.nn.Module:
    fresh = copy.deepcopy(layer)
    fresh.load_state_dict({key: torch.zeros_like(value) for key, value in layer.state_dict().items()})
    average = AveragedModel(fresh)
    average.update_parameters(layer)  # writes into the buffers directly
    return average.module.train()


def loaded(layer: torch.nn.Module) -> torch.nn.Module:
    other = copy.deepcopy(layer)
    other.load_state_dict(layer.state_dict())
    return other


COPIES: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "the layer itself": lambda layer: layer,
    "a copy": copy.deepcopy,
    "pickled": lambda layer: pickle.loads(pickle.dumps(layer)),
    "a moving average": averaged,
    "loaded": loaded,
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", ["actnorm", *ATTENTIONS])
def test_a_layer_that_has_started_asks_no_tensor_whether_it_has(name: str, copied: str) -> None:
    """On the meta device tensors have no values to ask for."""
    layer = layers()[name].train()
    layer(X)
    layer = COPIES[copied](layer)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer(1 + X)  # here a copy may look at what was copied
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    assert layer.is_started()
    if name != "sinkhorn":  # whose iteration looks at values
        layer.to("meta")(X.to("meta"))


@pytest.mark.parametrize("name", ["actnorm", *ATTENTIONS])
def test_weights_from_before_the_first_batch_start_again(name: str) -> None:
    layer = layers()[name].train()
    fresh = copy.deepcopy(layer.state_dict())
    layer(X)
    started_at = copy.deepcopy(layer.state_dict())
    layer.load_state_dict(fresh)
    assert not layer.is_started()
    layer(X)
    assert all(torch.equal(value, started_at[key]) for key, value in layer.state_dict().items())
