"""Small contractive blocks of every kind."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from acf.flows.contractive import ContractiveBlock
from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Shape, attention_branch, fc_branch
from acf.registry import ATTENTIONS, BLOCKS, BRANCHES, JOINS, resolve
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import model_config, with_attention
from tests.building_blocks.weights import bring_norms_to_limits, train_for_large_trace

# One block of every branch, with every attention, and with every way in which attention joins a branch.
BLOCK_KINDS: dict[str, dict[str, Any]] = {
    **{name: {"branch": name} for name in sorted(BRANCHES)},
    "fc": {"branch": "fc"},
    **{kind: with_attention(kind) for kind in sorted(ATTENTIONS)},
    **{f"l2, {join}": with_attention("l2", join=join) for join in ("block", *sorted(set(JOINS) - {"convex"}))},
}


def make_residual_block(shape: Shape, **settings: Any) -> ResidualBlock:
    """Make x + g(x) as `make_block` does."""
    made = make_block(shape, **settings)
    assert isinstance(made, ResidualBlock)
    return made


def make_block(
    shape: Shape, branch: str = "conv", leading_activation: bool = True, **settings: Any
) -> ContractiveBlock:
    """Make a block in float64, with fresh weights from torch's global generator; a residual one by default.

    Args:
        shape: (C, H, W) of input and output.
        branch: g, by its name in the registry, or "fc" for the fully connected one. Where the settings make attention a
            block of its own, g is attention alone.
        leading_activation: whether g starts with an activation, which that of a flow's first block does not.
        settings: other settings of a model.
    """
    config = model_config(shape, **settings)
    if branch == "fc":
        made = fc_branch(config, shape)
    elif config.attention.kind != "none" and config.attention.join == "block":
        made = attention_branch(config, shape)
    else:
        made = resolve(BRANCHES, branch, "branch")(config, shape, leading_activation)
    kind = resolve(BLOCKS, config.block, "block")
    block: ContractiveBlock = kind(made, shape, config.training_log_det, config.evaluation_log_det)
    return block.double()


@cache
def block_with_one_signed_jacobian(kind: str, shape: Shape, sign: int = -1) -> tuple[ResidualBlock, Tensor]:
    """A block and an input x (1, ...) at which its Jacobian has eigenvalues up to about 0.6 of the given sign.

    All callers get the same two objects, so they must not change them.
    """
    torch.manual_seed(0)
    block = bring_norms_to_limits(make_residual_block(shape, **BLOCK_KINDS[kind]), 1e-12)
    x = noise(1, *shape, seed=1)
    return train_for_large_trace(block, x, sign), x
