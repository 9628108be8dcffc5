"""Optimisers and learning rate."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.kernels.power_iteration import groups_of_equal_shapes, stacked_estimates
from acf.lipschitz.normalised import ABOVE, Normalised
from acf.registry import OPTIMISERS, resolve
from acf.settings.config import TrainingConfig
from acf.training.muon import Muon


class Optimiser(Protocol):
    """What training needs of an optimiser; those of torch have it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters, each a mapping that has the learning rate `lr`."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""

    def step(self) -> Any:
        """Change the parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on, parameters and gradients left out."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class JointOptimiser:
    """Several optimisers, each of its own parameters, as one.

    Attributes:
        parts: the optimisers.
        found_inf: None, or a tensor that is 1 if the next step is to change nothing; each part is given it.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self.found_inf: Tensor | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """Take a step with each part."""
        for part in self.parts:
            if self.found_inf is not None:
                part.found_inf = self.found_inf  # type: ignore[attr-defined]
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of all parts."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def build_optimiser(module: nn.Module, config: TrainingConfig) -> Optimiser:
    """Return the optimiser of a configuration for all parameters of `module`."""
    make = resolve(OPTIMISERS, config.optimiser, "optimiser")
    return make(module, config)


def adamw(module: nn.Module, config: TrainingConfig) -> Optimiser:
    """Return Adam (arXiv 1412.6980) for all parameters, with decoupled weight decay (arXiv 1711.05101)."""
    return _adamw(grouped(module, module.parameters(), config), config)


def muon(module: nn.Module, config: TrainingConfig) -> Optimiser:
    """Return Muon for the weights that are normalised by their spectral norm, Adam for all other parameters.

    After each step these weights are scaled down to their coefficients. The map that a normalised layer applies does
    not change by that, but steps keep their size against the weights, which would grow otherwise.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, Normalised)]
    weights = {layer.weight for layer in layers}
    moved = grouped(module, [p for p in module.parameters() if p in weights], config)
    first = Muon(moved, config.muon.learning_rate, config.muon.momentum)
    for group in first.param_groups:
        group["relative_rate"] = group.get("relative_rate", 1.0) * config.muon.learning_rate / config.learning_rate
    first.register_step_post_hook(lambda *_: scale_down(layers, first.found_inf))
    others = [p for p in module.parameters() if p not in weights]
    return JointOptimiser(first, _adamw(grouped(module, others, config), config))


def grouped(module: nn.Module, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimiser of some of a module's parameters.

    It is one group, unless attention has a learning rate of its own: then its parameters are another, of the
    `relative_rate` that `config.attention_rate` says.
    """
    parameters = list(parameters)
    if config.attention_rate == 1:
        return [{"params": parameters}]
    within = {p for layer in module.modules() if isinstance(layer, SelfAttention) for p in layer.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p not in within]},
        {"params": [p for p in parameters if p in within], "relative_rate": config.attention_rate},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def scale_down(layers: Sequence[Normalised], found_inf: Tensor | None = None) -> None:
    """Scale the stored weights of layers down to estimated norms of at most their coefficients.

    Args:
        layers: in any order; those of one shape and coefficient are stacked.
        found_inf: where it is 1, nothing changes.
    """
    for coefficient in dict.fromkeys(layer.coefficient for layer in layers):
        for group in groups_of_equal_shapes(layer for layer in layers if layer.coefficient == coefficient):
            weights = [layer.weight for layer in group]
            norms = stacked_estimates(group, torch.stack(weights))
            factors = ABOVE * coefficient / norms.clamp_min(ABOVE * coefficient)
            if found_inf is not None:
                factors = factors.masked_fill(found_inf.bool(), 1.0)
            torch._foreach_mul_(weights, list(factors.unbind()))


def _adamw(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of step 0, 1, ..., steps - 1.

    With r = `learning_rate`, w = `warmup_steps` and n = `steps` it is r (step + 1) / w while step < w. Afterwards it is
    r under the schedule `constant`, and r (1 + cos(pi (step - w) / (n - w))) / 2 under `cosine`, which would be 0 at
    step n.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimiser: Optimiser, rate: float) -> None:
    """Give all parameters the learning rate `rate`, multiplied by the `relative_rate` of groups that have one."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("relative_rate", 1.0)
