"""The published algorithm of Residual Flows, written plainly: tests and benchmarks compare the fast path with it.

Every product with the Jacobian is one call of `torch.autograd.grad`, the gradient of the log-determinant is a second
derivative taken in the forward pass ("backward in forward"), and the graph of g waits for the backward pass
(arXiv 1906.02735, section 3.2 and appendix; eager, nothing fused, nothing recomputed).
"""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.flow import Flow
from acf.flows.logdet import ONCE_IN_TRAINING, WeightedProbe, surrogate, value_and_neumann
from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Branch
from acf.lipschitz.layer import Tensors
from acf.lipschitz.normalised import Normalised
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.once_differentiable import OnceDifferentiable


class ReferenceBlock(ResidualBlock):
    """A residual block that trains as published; it has the same value and gradient as any other for the same probe."""

    @override
    def _branch_and_log_det_in_training(
        self, x: Tensor, weighted_probe: WeightedProbe, tensors: Tensors | None = None
    ) -> tuple[Tensor, Tensor]:
        parameters = [p for p in self.branch.parameters() if p.requires_grad]
        y, value = cast(tuple[Tensor, Tensor], _BackwardInForward.apply(self.branch, weighted_probe, x, *parameters))
        return y, value


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
    """Update the spectral norms as published: layer by layer, with a convolution and its transpose in every step."""
    for layer in flow.modules():
        if not isinstance(layer, Normalised):
            continue
        for _ in range(flow.config.power_iterations):
            if isinstance(layer, NormalisedConv2d):
                padding = layer.weight.shape[-1] // 2
                image = F.conv2d(layer.right, layer.weight, padding=padding)
                layer.left.copy_(F.normalize(image.flatten(1)).view_as(image))
                preimage = F.conv_transpose2d(layer.left, layer.weight, padding=padding)
            else:
                layer.left.copy_(F.normalize(layer.right @ layer.weight.T))
                preimage = layer.left @ layer.weight
            layer.right.copy_(F.normalize(preimage.flatten(1)).view_as(preimage))


class _BackwardInForward(OnceDifferentiable):
    """Compute the gradient of the sum of the log-determinants in the forward pass, scale it in the backward pass."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(
        ctx: Any, branch: Branch, weighted_probe: WeightedProbe, x: Tensor, *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, *parameters)
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y, value, neumann = value_and_neumann(branch, x, weighted_probe)
            gradient = surrogate(y, x, weighted_probe.probe, neumann)
            ctx.ready = torch.autograd.grad(gradient.sum(), (x, *parameters), retain_graph=True, allow_unused=True)
        ctx.x, ctx.y, ctx.parameters = x, y, parameters
        return y.detach(), value

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
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
