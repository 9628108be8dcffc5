"""The code published with Residual Flows (arXiv 1906.02735), built to this package's settings from a checkout of it.

Nothing of it is stored here and nothing is changed on disk: `load` puts the checkout on `sys.path` and imports its
package `resflows`. It runs as it is on torch 2.11 to 2.13 (its optimiser uses an old way of calling `Tensor.add_`, of
which torch warns once). One method is overridden at run time: `_calc_n_scale` leaves out scales whose maps would be
smaller than 4x4, where this package builds them, so that `blocks` 16-16-16 on 1x4x4 maps would be 16 convolutional
blocks there and 48 here. `same_scales` says whether that was the case.

Its settings are those of its `train_img.py`, but for power iteration: a fixed number of steps (`n_lipschitz_iters`)
instead of the tolerance 1e-3, as this package does. A step is that programme's: bits per dimension, backward pass,
clipping, its Adam, update of the norms, its moving average; its meters, of which each reads a value of the device, and
its `gc.collect()` and `torch.cuda.empty_cache()` after every step are left out, in its favour.
"""

import importlib
import math
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import acf
from acf.flows.actnorm import ActNorm
from acf.lipschitz.activations import LipSwish
from acf.lipschitz.normalised import Normalised

BETAS, DECAY, CLIP_NORM, TERMS = (0.9, 0.99), 0.999, 1.0, 2
FC_BLOCKS, FC_WIDTH = 4, 128


def load(checkout: Path) -> ModuleType:
    """Import `resflows` from a checkout.

    Raises:
        SystemExit: the folder is no checkout of https://github.com/rtqichen/residual-flows.
    """
    if not (checkout / "resflows/resflow.py").is_file():
        raise SystemExit(
            f"{checkout} is no checkout of github.com/rtqichen/residual-flows: no resflows/resflow.py there"
        )
    sys.path.insert(0, str(checkout.resolve()))
    warnings.filterwarnings("ignore", message="This overload of", module="resflows")
    return importlib.import_module("resflows.resflow")


class Published:
    """The published flow, its optimiser and its moving average, for this package's settings.

    Args:
        resflow: what `load` returned.
        flow: flow of this package with convolutional branches and LipSwish, whose architecture is taken over.
        rate: learning rate.

    Raises:
        ValueError: fully connected blocks that the published code cannot have.

    Attributes:
        net: the published module.
        shape: (C, H, W).
        same_scales: whether the published code by itself builds as many scales.
    """

    def __init__(self, resflow: ModuleType, flow: acf.Flow, rate: float = 1e-3) -> None:
        config = flow.config
        self.shape = config.shape
        if config.fc_blocks not in (0, FC_BLOCKS) or config.fc_width != FC_WIDTH:
            raise ValueError(f"the published code has {FC_BLOCKS} fully connected blocks of width {FC_WIDTH}, or none")
        device = next(flow.parameters()).device
        layers, shape = resflow.layers, (2, *config.shape)

        class AllScales(resflow.ResidualFlow):  # type: ignore[name-defined, misc]
            def _calc_n_scale(self, input_size: tuple[int, ...]) -> int:
                return len(config.blocks)

        self.same_scales = resflow.ResidualFlow._calc_n_scale(None, shape) >= len(config.blocks)
        self.net: nn.Module = AllScales(
            shape,
            n_blocks=config.blocks,
            intermediate_dim=config.idim,
            factor_out=config.factor_out,
            init_layer=layers.LogitTransform(config.logit_alpha),
            actnorm=config.actnorm,
            coeff=config.coefficient,
            vnorms="2222",
            n_lipschitz_iters=config.power_iterations,
            sn_atol=1e-3,
            sn_rtol=1e-3,
            n_power_series=None,
            n_dist="poisson",
            kernels="-".join(map(str, config.kernels)),
            activation_fn="swish",
            fc_end=config.fc_blocks > 0,
            n_exact_terms=TERMS,
            preact=True,
            neumann_grad=True,
            grad_in_forward=True,
            first_resblock=True,
        ).to(device)
        optimizers, utils = (importlib.import_module(f"resflows.{name}") for name in ("optimizers", "utils"))
        base = importlib.import_module("resflows.layers.base")
        self._normalised = (base.InducedNormConv2d, base.InducedNormLinear)
        self._blocks, self._actnorms = layers.iResBlock, (layers.ActNorm1d, layers.ActNorm2d)
        self._swish = base.Swish
        self.optimiser = optimizers.Adam(self.net.parameters(), lr=rate, betas=BETAS, weight_decay=0)
        self.average = utils.ExponentialMovingAverage(self.net, DECAY)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the estimate of log p(x) (B,) in nats; in training its value is the one that yields the gradient."""
        z, minus_log_abs_det = self.net(x, 0)
        return acf.Flow.base_log_prob(z) - minus_log_abs_det.squeeze(1)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Update the spectral norms, as `update_lipschitz` in its `train_img.py`."""
        for module in self.net.modules():
            if isinstance(module, self._normalised):
                module.compute_weight(update=True)

    @torch.no_grad()
    def take_branches_of(self, flow: acf.Flow) -> None:
        """Give every branch the weights in use in `flow`."""
        blocks = [module for module in self.net.modules() if isinstance(module, self._blocks)]
        for theirs, ours in zip(blocks, flow.contractive_blocks().values(), strict=True):
            _copy_branch([m for m in theirs.nnet.modules() if isinstance(m, (*self._normalised, self._swish))], ours)

    @torch.no_grad()
    def take_scales_of(self, flow: acf.Flow) -> None:
        """Give every ActNorm the values in `flow`, which must have seen a batch.

        The published code has no ActNorm at the start of the second and later scales; those of `flow` are made the
        identity.
        """
        for scale in list(flow.bijection.scales)[1:]:
            first = _actnorms(scale)[0]
            first.shift.zero_()
            first.log_scale.zero_()
        own = [m for i, s in enumerate(flow.bijection.scales) for m in _actnorms(s)[min(i, 1) :]]
        for theirs, ours in zip((m for m in self.net.modules() if isinstance(m, self._actnorms)), own, strict=True):
            theirs.bias.copy_(ours.shift.flatten())
            theirs.weight.copy_(ours.log_scale.flatten())
            theirs.initialized.fill_(1)


def _actnorms(module: nn.Module) -> list[ActNorm]:
    return [m for m in module.modules() if isinstance(m, ActNorm)]


def _copy_branch(theirs: list[Any], block: nn.Module) -> None:
    ours = [m for m in block.modules() if isinstance(m, Normalised | LipSwish)]
    for target, source in zip(theirs, ours, strict=True):
        if isinstance(source, LipSwish):
            target.beta.copy_(source.beta.reshape(1))
        else:
            target.weight.copy_(source.effective_weight())  # of norm at most the coefficient: not scaled again
            target.bias.copy_(source.bias)


@torch.no_grad()
def largest_difference(published: Published, flow: acf.Flow, x: Tensor) -> float:
    """Return the relative difference of z from both codes on the same weights and images (B, C, H, W)."""
    flow.train()
    flow.log_prob(x)  # sets the scales of ActNorm
    published.take_branches_of(flow)
    published.take_scales_of(flow)
    ours, theirs = flow.eval().transform(x), published.net.eval()(x)
    flow.train()
    published.net.train()
    return float((ours - theirs).norm() / ours.norm())


def bits_per_dim(log_prob: Tensor, flow: acf.Flow) -> Tensor:
    """Turn log p(x) (B,) in nats of images in [0, 1) into bits per dimension of their grey levels."""
    return -log_prob / (math.prod(flow.shape) * math.log(2)) + math.log2(flow.config.levels)
