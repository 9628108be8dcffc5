"""The published algorithm of Residual Flows, written plainly: what the fast path is compared with.

Every product with the Jacobian is one call of `torch.autograd.grad`, the gradient of the log-determinant is a second
derivative taken in the forward pass ("backward in forward"), and the graph of g waits for the backward pass
(arXiv 1906.02735, section 3.2 and appendix; eager, nothing fused, nothing recomputed).
"""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from acf.flows.flow import Flow
from acf.flows.logdet import WeightedProbe, surrogate, value_and_neumann
from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Branch
from acf.lipschitz.normalised import Normalised, NormalisedConv2d


class ReferenceBlock(ResidualBlock):
    """A residual block that trains as published; the same value and gradient as any other for the same draw."""

    def _with_gradient(self, x: Tensor, draw: WeightedProbe) -> tuple[Tensor, Tensor]:
        parameters = [p for p in self.branch.parameters() if p.requires_grad]
        return cast(tuple[Tensor, Tensor], _BackwardInForward.apply(self.branch, draw, x, *parameters))


def as_reference(flow: Flow) -> Flow:
    """Return a copy of the flow, weights and state included, whose residual blocks are `ReferenceBlock`s."""
    flow = copy.deepcopy(flow)
    for module in flow.modules():
        for key, child in module.named_children():
            if type(child) is ResidualBlock:
                config = child.training_log_det, child.evaluation_log_det
                setattr(module, key, ReferenceBlock(child.branch, child.shape, *config).train(child.training))
    return flow


@torch.no_grad()
def renormalise(flow: Flow) -> None:
    """Refresh the spectral norms as published: layer by layer, a convolution and its transpose in every step."""
    for layer in flow.modules():
        if not isinstance(layer, Normalised):
            continue
        for _ in range(flow.config.power_iterations):
            if isinstance(layer, NormalisedConv2d):
                padding = layer.weight.shape[-1] // 2
                pushed = F.conv2d(layer.right, layer.weight, padding=padding)
                layer.left.copy_(F.normalize(pushed.flatten(1)).view_as(pushed))
                pulled = F.conv_transpose2d(layer.left, layer.weight, padding=padding)
            else:
                layer.left.copy_(F.normalize(layer.right @ layer.weight.T))
                pulled = layer.left @ layer.weight
            layer.right.copy_(F.normalize(pulled.flatten(1)).view_as(pulled))


class _BackwardInForward(torch.autograd.Function):
    """The gradient of the sum of the log-determinants is ready after the forward pass, and scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any, branch: Branch, draw: WeightedProbe, x: Tensor, *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y, value, neumann = value_and_neumann(branch, x, draw)
            pulled = surrogate(y, x, draw.probe, neumann)
            ctx.ready = torch.autograd.grad(pulled.sum(), (x, *parameters), retain_graph=True, allow_unused=True)
        ctx.x, ctx.y, ctx.parameters = x, y, parameters
        return y.detach(), value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.equal(grad_value, grad_value[:1].expand_as(grad_value)):
            raise NotImplementedError("the published algorithm needs the same weight for every log-determinant")
        grads = torch.autograd.grad(ctx.y, (ctx.x, *ctx.parameters), grad_y, allow_unused=True)
        return (
            None,
            None,
            *(
                _add(grad, None if ready is None else grad_value[0] * ready)
                for grad, ready in zip(grads, ctx.ready, strict=True)
            ),
        )


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
