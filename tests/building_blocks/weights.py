"""Ways of moving weights away from where they start, so that tests meet what training leads to."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from acf.flows.residual import ResidualBlock
from acf.lipschitz.normalised import Normalised
from tests.building_blocks.jacobians import jacobian

Module = TypeVar("Module", bound=nn.Module)


def normalised_maps(module: nn.Module) -> list[Normalised]:
    return [part for part in module.modules() if isinstance(part, Normalised)]


@torch.no_grad()
def bring_norms_to_limits(module: Module, tolerance: float = 1e-6) -> Module:
    """Enlarge all weights that are normalised, so that the norm of each of these maps is its coefficient.

    Fresh weights are smaller than that and are left alone by the normalisation. With norms at their limits bounds are
    nearly attained, and terms of high order count in the series of the log-determinant. Estimates of the norms are
    iterated until they change by less than `tolerance`.
    """
    for layer in normalised_maps(module):
        layer.converge_norm(tolerance)
        layer.weight.mul_(max(4.0, 2 * layer.coefficient / float(layer.estimated_norm())))
    return module


@torch.no_grad()
def move_all_parameters(module: Module, distance: float = 0.3) -> Module:
    """Add noise of this standard deviation to all parameters, so that none has the value that it starts with.

    Layers that start from their first batch take that start as done, so that they keep the values given here.
    """
    for parameter in module.parameters():
        parameter.add_(distance * torch.randn_like(parameter))
    for layer in normalised_maps(module):
        layer.converge_norm()
    for part in module.modules():
        if hasattr(part, "initialised"):
            part.initialised.fill_(True)
    return module


@torch.no_grad()
def align_maps(block: ResidualBlock, sign: float = 1.0) -> ResidualBlock:
    """Make eigenvalues of the Jacobian large and of one sign, for a branch of three maps from and to all values.

    The last map becomes nearly +- the adjoint of the first, and the activations are steep, so that the Jacobian is
    close to a symmetric matrix. The log-determinant is then large and all orders of its series matter, which is not so
    for random weights, whose traces nearly vanish.
    """
    first, middle, last = layers = [layer for layer in block.branch if isinstance(layer, Normalised)]
    adjoint = first.weight.transpose(0, 1)
    last.weight.copy_(sign * (adjoint.flip(2, 3) if adjoint.dim() == 4 else adjoint))
    middle.weight.copy_(torch.eye(len(middle.weight)).view_as(middle.weight))
    for layer in layers:
        layer.weight.add_(0.05 * torch.randn_like(layer.weight)).mul_(10)
        layer.bias.fill_(2.0)
        layer.converge_norm(1e-6, 2000)
    return block


def train_for_large_trace(block: ResidualBlock, x: Tensor, sign: int, norm: float = 0.6) -> ResidualBlock:
    """Make eigenvalues of the Jacobian at x (1, ...) large and of one sign, for a branch of any kind.

    Gradient ascent on +- the trace ends when the Jacobian has this spectral norm.
    """
    optimiser = torch.optim.Adam(block.parameters(), lr=0.03)
    for _ in range(100):
        matrix = jacobian(block.branch, x, create_graph=True)
        if float(torch.linalg.matrix_norm(matrix.detach(), 2)) > norm:
            break
        optimiser.zero_grad()
        (-sign * matrix.trace()).backward()
        optimiser.step()
        for layer in normalised_maps(block):
            layer.renormalise(20)
    return block
