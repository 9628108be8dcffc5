"""The forward map of a flow as a program without Python, by torch.export."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from typing_extensions import override

from acf.errors import InputError
from acf.flows.flow import Flow
from acf.flows.monotone import MonotoneBlock
from acf.lipschitz.precision import first_parameter


class _ForwardMap(nn.Module):
    """x, c -> z = f(x; c)."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    @override
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.flow.transform(x, condition)


@torch.no_grad()
def exported_transform(flow: Flow) -> ExportedProgram:
    """Return z = f(x), `Flow.transform` in evaluation mode, as a program for batches of any size but 0.

    `torch.export.save` writes it, and `torch.export.load(...).module()` runs it where this package is not installed.
    It takes x (B, ...) in the type of the flow's weights, and the condition (B, ...) of a conditional flow as a second
    argument. Nothing looks at values: where x is no image, z is NaN or infinite. It has neither inverse nor
    log-determinant, which depend on values while they run: lengths of series, and iterations until a bound is reached.

    Args:
        flow: left as it is.

    Raises:
        InputError: it has monotone blocks, whose forward map iterates until a residual is small.
    """
    if any(isinstance(m, MonotoneBlock) for m in flow.modules()):
        raise InputError(
            "a flow of monotone blocks cannot be exported, as its forward map iterates until a residual is small; "
            "flows of residual blocks can (model.block: residual)"
        )
    flow = copy.deepcopy(flow).eval()
    like, batch = cast(Tensor, first_parameter(flow)), 3
    arguments = [like.new_full((batch, *flow.shape), 0.5)]
    config = flow.config.condition
    if config.classes is not None:
        arguments.append(torch.zeros(batch, dtype=torch.int64, device=like.device))
    elif config.size is not None:
        arguments.append(like.new_zeros(batch, config.size))
    shapes = tuple({0: Dim("batch")} for _ in arguments)
    return export(_ForwardMap(flow), tuple(arguments), dynamic_shapes=shapes)
