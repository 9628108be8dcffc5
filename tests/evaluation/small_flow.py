"""A flow of 4x4 images that is proven contractive, and images to look at."""

import torch
from torch import Tensor

import acf
from acf.flows.flow import Flow

LEVELS = 17


def small_flow(dtype: torch.dtype) -> tuple[Flow, Tensor]:
    """Return a flow in evaluation mode and 12 different uint8 images."""
    torch.manual_seed(0)
    flow = acf.build(
        {"shape": (1, 4, 4), "levels": LEVELS, "blocks": [2], "idim": 8, "squeeze_first": True, "fc_blocks": 1}
    ).to(dtype)
    flow.train()
    flow.log_prob(torch.rand(64, 1, 4, 4, dtype=dtype))
    acf.tighten(flow.eval())
    images = torch.randint(0, LEVELS, (12, 1, 4, 4), generator=torch.Generator().manual_seed(2))
    return flow, images.to(torch.uint8)
