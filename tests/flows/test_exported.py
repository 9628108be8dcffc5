"""The forward map exported, stored and loaded again."""

import io
from typing import Any

import pytest
import torch

from acf.flows.exported import exported_transform
from tests.building_blocks.bijections import make_moved_flow
from tests.building_blocks.settings import with_attention

FLOWS: dict[str, dict[str, Any]] = {
    "sinkhorn": {"shape": (1, 4, 4), "squeeze_first": True, **with_attention("sinkhorn", join="block")},
    "l2, labels": {"shape": (1, 2, 4), "condition": {"classes": 3}, **with_attention("l2")},
    "dense": {
        "shape": (1, 4, 4),
        "blocks": (1, 1),
        "branch": "dense",
        "activation": "clipswish",
        "logit_alpha": 0.0123,  # of no other test, so that nothing is known of this logit before
    },
    "vectors, conditions": {"shape": (3,), "condition": {"size": 2}},
}


QUICK = {  # but for sinkhorn, which takes half a minute, every flow in one type
    *((kind, torch.float64) for kind in ("l2, labels", "dense")),
    ("vectors, conditions", torch.float32),
}
CASES = [
    pytest.param(kind, dtype, marks=[] if (kind, dtype) in QUICK else [pytest.mark.slow])
    for kind in FLOWS
    for dtype in (torch.float64, torch.float32)
]


@pytest.mark.parametrize(("kind", "dtype"), CASES, ids=str)
def test_the_program_computes_the_same_for_every_batch_size(kind: str, dtype: torch.dtype) -> None:
    flow = make_moved_flow(**FLOWS[kind]).to(dtype).train()
    stored = io.BytesIO()
    torch.export.save(exported_transform(flow), stored)
    assert all(module.training for module in flow.modules())  # it is left as it was
    flow.eval()
    stored.seek(0)
    program = torch.export.load(stored).module()
    for batch in (1, 2, 7):
        x = torch.rand(batch, *flow.shape, dtype=dtype)
        given = []
        if flow.config.condition.classes:
            given = [torch.arange(batch) % 3]
        elif flow.config.condition.size:
            given = [torch.randn(batch, 2, dtype=dtype)]
        z = program(x, *given)
        error = (z - flow.transform(x, *given)).abs().max()
        assert error <= (1e-12 if dtype == torch.float64 else 1e-4)
        assert z.shape == (batch, flow.transform(x, *given).shape[1])
