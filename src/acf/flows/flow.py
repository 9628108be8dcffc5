"""The flow: a bijection of images to standard normal noise, and the density it defines."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from acf.errors import ConvergenceError, InputError
from acf.flows.actnorm import ActNorm, prepared_scales
from acf.flows.certificate import TARGET, Certificate, certify_blocks, require_proven, tighten_blocks
from acf.flows.conditional import ConditionFeatures
from acf.flows.contractive import ContractiveBlock, UnsolvedBlockError, prepared_blocks
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.implicit import INVERSE_ONCE
from acf.flows.inputs import require_form
from acf.flows.inversion import Inversion
from acf.flows.multiscale import MultiScale
from acf.flows.noise import Noise, RankNoise, SharedNoise, in_data_parallel_call, require_no_bypass
from acf.flows.prepared import Prepared
from acf.flows.preprocessing import Preprocessing
from acf.flows.publishing.hub import HubMethods
from acf.flows.record import Origin
from acf.lipschitz.first_batch import StartedByFirstBatch
from acf.lipschitz.normalised import Normalised, renormalise
from acf.lipschitz.not_compiled import not_compiled
from acf.lipschitz.once_differentiable import refuse_transforms
from acf.lipschitz.precision import (
    autocast_off,
    first_parameter,
    refuse_backward_in_autocast,
    require_full_precision,
    require_full_weights,
)
from acf.runs.ranks import BatchShare
from acf.settings.config import LogDetConfig, ModelConfig

if TYPE_CHECKING:
    from acf.flows.distribution import FlowDistribution


class Flow(HubMethods, nn.Module):
    """A density of images x in [0, 1)^(C x H x W) or vectors x in R^D: x has the law of f^-1(z) with z standard normal.

    Built by `acf.build`. Log-determinants are unbiased estimates drawn from torch's global generator, or exact where so
    configured. Everything is computed in the type of the weights, float32 or float64, with autocast off.

    Below, (B, ...) stands for images (B, C, H, W) or vectors (B, D), and z is (B, D) with D values of each. A
    conditional flow has a density p(x | c) and takes c as `condition`: labels (B,), integers, or vectors (B, k). One
    row stands for all samples. The proof of contraction holds for every c (`acf.flows.conditional`).

    Attributes:
        shape: (C, H, W), or (D,).
        config (ModelConfig): the configuration it was built from.
        origin: what was stored with the weights that it was loaded with; None if it was not loaded.
    """

    def __init__(self, config: ModelConfig, preprocessing: Preprocessing, bijection: MultiScale) -> None:
        super().__init__()
        self.config, self.preprocessing, self.bijection = config, preprocessing, bijection
        self.condition_features = ConditionFeatures(config.condition) if config.condition.is_given else None
        self.shape: tuple[int, ...] = config.shape
        self.origin: Origin | None = None
        self._wrapped = False
        self._rank_noise: RankNoise | None = None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (z, log_abs_det): z (B, D), log|det dz/dx| (B,) in nats, for x (B, ...), images in [0, 1).

        The first batch in training mode sets the scales of ActNorm and attention. Images are accepted wherever the
        logit is finite, which is slightly beyond [0, 1], so that every `inverse` can be mapped back.

        A flow may be wrapped by torch's DistributedDataParallel, or by `acf.DataParallelFlow`, which has `log_prob`.
        Then all ranks start from the scales of all their first batches together, their power series have the same
        lengths, and their probes are independent, whatever their seeds.

        Raises:
            InputError: wrong shape, type or precision, values that are NaN, infinite or no pixels, or a condition that
                is missing or wrong; no layer has seen the batch then. Also if the flow is wrapped and in training
                called otherwise than through the wrapped model, which would leave gradients of several ranks apart. It
                is a ValueError.
        """
        self._check(x)
        condition = self.checked_condition(condition, x.shape[0])
        return self._value_and_log_det(x, condition, self._noise(x))

    @not_compiled
    def _value_and_log_det(self, x: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor]:
        z, log_abs_det, _ = self._with_features(x, condition, noise)
        return z, log_abs_det

    def _with_features(self, x: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return (z, log_abs_det, features), the latter (B, C, H, W) at the end of every scale."""
        with autocast_off(x.device.type), self._blocks_by_name():
            x, start = self.preprocessing.as_part(x, None)
            z, log_abs_det, features = self.bijection.forward_with_features(x, self._prepared(x, condition, noise))
        refuse_backward_in_autocast(z)
        refuse_backward_in_autocast(log_abs_det)
        return z, start + log_abs_det, features

    def _prepared(self, x: Tensor, condition: Tensor | None, noise: Noise) -> Prepared:
        blocks = [m for m in self.bijection.modules() if isinstance(m, ContractiveBlock)]
        norms = (m for m in self.bijection.modules() if isinstance(m, ActNorm))
        return Prepared(prepared_blocks(blocks, x, noise), prepared_scales(norms), self._features(condition))

    @not_compiled
    def checked_condition(self, condition: Tensor | None, batch: int) -> Tensor | None:
        """Return the conditions of a batch, one row for each sample, or raise InputError."""
        if self.condition_features is None:
            if condition is not None:
                raise InputError("a condition was given, but this flow's density depends on none")
            return None
        if condition is None:
            raise InputError("this flow's density depends on a condition: pass condition=...")
        return self.condition_features.require(condition, batch, first_parameter(self).dtype)  # type: ignore[union-attr]

    def _features(self, condition: Tensor | None) -> Tensor | None:
        """Return the features (B, width) of a condition that was checked."""
        return None if self.condition_features is None else self.condition_features(condition)

    def _noise(self, x: Tensor) -> Noise:
        """Return where the random numbers of a pass over x come from."""
        self._require_no_bypass()
        if self.training and in_data_parallel_call():
            if self._rank_noise is None:
                self._rank_noise = RankNoise.agreed(x.device)
            return self._rank_noise
        return SharedNoise(BatchShare(0, len(x), len(x)))

    def _require_no_bypass(self) -> None:
        if self._wrapped and self.training and torch.is_grad_enabled():
            require_no_bypass()

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """Names that DistributedDataParallel is to leave out. Nothing else asks: it tells that the flow is wrapped."""
        self._wrapped = True
        return []

    def _replicate_for_data_parallel(self) -> "Flow":
        raise InputError(
            "nn.DataParallel would draw the same noise on every device and forget what the first batch sets: train "
            "with one process per device instead, started by torchrun, and model = acf.DataParallelFlow(flow)"
        )

    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return z = f(x) (B, D) without the cost of the log-determinant; errors as `forward`."""
        self._check(x)
        condition = self.checked_condition(condition, x.shape[0])
        self._require_no_bypass()
        with autocast_off(x.device.type), self._blocks_by_name():
            z = self.bijection.transform(self.preprocessing.transform(x), self._features(condition))
        refuse_backward_in_autocast(z)
        return z

    @not_compiled
    def _check(self, x: Tensor) -> None:
        self._check_form(x)
        self.preprocessing.require_values(x)

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return log p(x), or log p(x | c), (B,) in nats: an unbiased estimate, or exact; errors as `forward`."""
        z, log_abs_det = self(x, condition)
        return self.base_log_prob(z) + log_abs_det

    def _check_form(self, x: Tensor) -> None:
        require_form(x, self.shape)
        require_full_precision(x, first_parameter(self), "flow")

    def log_prob_unchecked(self, x: Tensor, condition: Tensor | None = None, share: BatchShare | None = None) -> Tensor:
        """Return `log_prob(x, condition)` for values that are known to be possible, as those of `dequantise` are.

        Nothing looks at the values, for which the host would wait for a device to finish all its work.

        Args:
            x: images (B, C, H, W) or vectors (B, D).
            condition: c, one row for each sample, labels as int64.
            share: which rows x has of a batch that several processes share; the random numbers are those of the batch.

        Raises:
            InputError: wrong shape, type or precision, or a wrapped flow, as for `forward`.
        """
        self._check_form(x)
        noise = self._noise(x) if share is None else SharedNoise(share)
        z, log_abs_det = self._value_and_log_det(x, condition, noise)
        return self.base_log_prob(z) + log_abs_det

    @staticmethod
    def base_log_prob(z: Tensor) -> Tensor:
        """Return the log-density (B,) of the standard normal at z (B, D), in nats."""
        return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)

    def inverse(self, z: Tensor, differentiable: bool = False, condition: Tensor | None = None) -> Tensor:
        """Return x (B, ...) with f(x) = z for z (B, D); errors as `invert`.

        The result has no gradient unless `differentiable`. Then it has that of the exact inverse, once, in z and in all
        parameters, by the implicit function theorem (`acf.flows.implicit`); the mode makes no difference.

        Args:
            z: noise, or what `forward` returned.
            differentiable: whether x has a gradient where torch's grad mode is on.
            condition: c, of a conditional flow.

        Raises:
            InputError: also if a leaf z requires grad and `differentiable` is false, or if it is true in training
                mode before the first batch, which sets scales.
        """
        if z.requires_grad and z.is_leaf and torch.is_grad_enabled() and not differentiable:
            raise InputError(
                "z requires grad, but the inverse has no gradient by default: pass differentiable=True, or z.detach()"
            )
        if differentiable and self.training:
            self._require_scales()
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            x = self._invert(z, condition).x
        refuse_backward_in_autocast(x)
        return x

    @torch.no_grad()
    def invert(self, z: Tensor, condition: Tensor | None = None) -> Inversion:
        """Return x (B, ...) with f(x) = z for z (B, D), and error bound and cost of each contractive block.

        Nothing of it has a gradient; `inverse` may have one.

        Raises:
            InputError: wrong shape or precision; it is a ValueError.
            NotContractiveError: a block has no proof of contraction; names it.
            ConvergenceError: a fixed-point iteration did not reach its accuracy; names the block.
        """
        return self._invert(z, condition)

    @not_compiled
    def _invert(self, z: Tensor, condition: Tensor | None) -> Inversion:
        refuse_transforms(INVERSE_ONCE, z)
        values = math.prod(self.shape)
        if z.dim() != 2 or z.shape[1] != values:
            raise InputError(f"expected z of shape (B, {values}), got {tuple(z.shape)}")
        require_full_precision(z, first_parameter(self), "flow")
        features = self._features(self.checked_condition(condition, len(z)))
        blocks = self.contractive_blocks()
        require_proven(blocks)
        with self._blocks_by_name():
            y, report = self.bijection.inverse_with_report(z, features)
        solutions = {name: report.solutions[block] for name, block in blocks.items()}
        return Inversion(
            self.preprocessing.inverse(y),
            {name: solution.bound for name, solution in solutions.items()},
            {name: solution.evaluations for name, solution in solutions.items()},
        )

    @contextmanager
    def _blocks_by_name(self) -> Iterator[None]:
        """Name the block whose iteration did not converge."""
        try:
            yield
        except UnsolvedBlockError as error:
            name = next(name for name, block in self.contractive_blocks().items() if block is error.block)
            raise ConvergenceError(f"block {name}: {error}") from None

    def _require_scales(self) -> None:
        if not all(m.is_started() for m in self.bijection.modules() if isinstance(m, StartedByFirstBatch)):
            raise InputError(
                "the first batch in training mode sets the scales of ActNorm and attention, and the gradient of an "
                "inverse needs them: pass the flow images first, or call eval()"
            )

    @not_compiled
    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        differentiable: bool = False,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draw n images (n, C, H, W), clamped to [0, 1), or vectors (n, D) from z = temperature * noise.

        They have no gradient unless `differentiable`. Then they have that of `inverse` in the parameters at fixed
        noise (reparameterisation), which is 0 for values that were clamped.

        Args:
            n: number of samples.
            temperature: factor of the noise.
            generator: source of the noise on the CPU; torch's global one by default.
            differentiable: whether the samples have a gradient where torch's grad mode is on.
            condition: c, of a conditional flow: one row for each sample, or one for all.
        """
        parameter = next(self.parameters())
        z = torch.randn(n, math.prod(self.shape), generator=generator, dtype=parameter.dtype, device="cpu")
        x = self.inverse(temperature * z.to(parameter.device), differentiable, condition)
        return self.preprocessing.into_range(x)

    def distribution(self, condition: Tensor | None = None, validate_args: bool | None = None) -> "FlowDistribution":
        """Return the density as a `torch.distributions.Distribution`, with `log_prob`, `sample` and `rsample`.

        See `acf.flows.distribution.FlowDistribution` for the arguments.
        """
        from acf.flows.distribution import FlowDistribution

        return FlowDistribution(self, condition, validate_args)

    @not_compiled
    @torch.no_grad()
    def renormalise(self) -> None:
        """Update the estimated spectral norms of all layers, as is needed after each step of the optimiser."""
        renormalise((m for m in self.modules() if isinstance(m, Normalised)), self.config.power_iterations)

    def use_cuda_graphs(self, wanted: bool = True) -> None:
        """Set whether training on CUDA records the kernels of each contractive block and replays them.

        The results are the same. It pays where the host takes longer to start kernels than the GPU to run them, as on
        small maps and in reduced precision; recordings take some seconds at first and memory for results of kernels.
        """
        graphs = CudaGraphs() if wanted else None
        for block in self.contractive_blocks().values():
            block.cuda_graphs = graphs

    def use_evaluation_estimator(self, config: LogDetConfig) -> None:
        """Set how log-determinants are estimated in evaluation mode."""
        for block in self.contractive_blocks().values():
            block.evaluation_log_det = config

    def contractive_blocks(self) -> dict[str, ContractiveBlock]:
        """Return all contractive blocks in the order of the flow by their names, such as "scale 1, block 3"."""
        return {
            f"scale {s}, block {b}": block
            for s, scale in enumerate(self.bijection.scales, start=1)
            for b, block in enumerate((m for m in scale.modules() if isinstance(m, ContractiveBlock)), start=1)
        }


def certify(flow: Flow) -> Certificate:
    """Return the certificate of all contractive blocks of a flow; see `acf.flows.certificate.certify_blocks`.

    `Certificate.require` raises NotContractiveError where a bound is not below 1.

    Raises:
        InputError: the weights are float16 or bfloat16, in which the flow cannot run.
    """
    require_full_weights(first_parameter(flow), "flow")
    return certify_blocks(flow.contractive_blocks())


def tighten(flow: Flow, target: float = TARGET, max_factor: float = 1.3) -> Certificate:
    """Scale weights down as far as the proofs of contraction need, and return the certificate.

    A flow that is proven contractive is never refused: where its coefficients do not allow a bound of `target`, the
    certificate says what is reached, which is below 1.

    Args:
        flow: changed in place (buffers only); see `acf.flows.certificate.tighten_blocks`.
        target: bound to reach, below 1.
        max_factor: largest allowed ratio of a branch's bound to `target`, where that bound is not below 1.

    Raises:
        NotContractiveError: a branch is not contractive and needs more than `max_factor`, or cannot be proven
            contractive by closing the gaps, or has values that are not finite.
        InputError: as `certify`.
    """
    require_full_weights(first_parameter(flow), "flow")
    return tighten_blocks(flow.contractive_blocks(), target, max_factor)
