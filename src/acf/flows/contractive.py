"""The base of blocks that are bijections because their branch g is a contraction."""

import hashlib
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import ConvergenceError
from acf.flows.bijection import PreparedBijection, Report
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.exact import differentiable_value_and_exact_log_det, value_and_exact_log_det
from acf.flows.fixed_point import Solution
from acf.flows.implicit import INVERSE_ONCE
from acf.flows.log_det_form import LogDetForm
from acf.flows.logdet import RouletteEstimator, WeightedProbe, exact_log_det, value_and_series, value_and_surrogate
from acf.flows.noise import Noise
from acf.flows.power_series import differentiable_value_and_log_det, value_and_log_det
from acf.flows.prepared import BlockInputs, Prepared
from acf.lipschitz.branch import Branch
from acf.lipschitz.effective import effective_tensors
from acf.lipschitz.layer import Tensors
from acf.lipschitz.once_differentiable import is_transformed, refuse_transforms
from acf.settings.config import LogDetConfig, TrainingLogDetConfig


class UnsolvedBlockError(ConvergenceError):
    """The iteration of a block did not converge.

    Attributes:
        block: that block.
    """

    def __init__(self, message: str, block: "ContractiveBlock") -> None:
        super().__init__(message)
        self.block = block


class ContractiveBlock(PreparedBijection):
    """A bijection made of a branch g with Lip(g) < 1, whose log-determinant is a function of the Jacobian J of g.

    In training mode the log-determinant follows `training` (gradient by Neumann series, activations recomputed in the
    backward pass, where so configured); in evaluation mode it follows `evaluation`, each sample with its own length.

    A new kind of block implements `forward`, `transform`, `solve` and `_with_gradient`, declares `log_det_form`, and
    has a line in the registry.

    Args:
        branch: g, with a proven Lipschitz bound.
        shape: (C, H, W) of input and output.
        training: estimator in training mode.
        evaluation: estimator in evaluation mode.

    Attributes:
        log_det_form: the log-determinant as a function of J.
        inverse_once: what is said to whoever differentiates the inverse again.
        cuda_graphs: where set, training on CUDA records the kernels of the block and replays them.
    """

    log_det_form: ClassVar[LogDetForm]
    inverse_once: ClassVar[str] = INVERSE_ONCE

    def __init__(
        self,
        branch: Branch,
        shape: tuple[int, int, int],
        training: TrainingLogDetConfig,
        evaluation: LogDetConfig,
    ) -> None:
        super().__init__()
        self.branch, self.shape = branch, shape
        self.training_log_det, self.evaluation_log_det = training, evaluation
        self.cuda_graphs: CudaGraphs | None = None
        self._cached_bound: tuple[bytes, float] | None = None

    def branch_and_log_det(self, x: Tensor, prepared: Prepared | None) -> tuple[Tensor, Tensor]:
        """Return (g(x), log_abs_det), the latter of the block where J is taken at x (B, C, H, W), in nats.

        It is an unbiased estimate, and so is its gradient.
        """
        inputs = prepared.blocks.get(self) if prepared is not None else None
        tensors = None if inputs is None else inputs.tensors
        if self.training and self._has_derivatives(x) and self.training_log_det.estimator == "series":
            return self._branch_and_log_det_in_training(x, self._training_probe(x, inputs), tensors)
        config = self.training_log_det if self.training else self.evaluation_log_det
        if config.estimator == "exact":
            return self._branch_and_exact_log_det(x, tensors)
        weighted_probes = RouletteEstimator.from_config(config).weighted_probes(x, per_sample=not self.training)
        if not self._has_derivatives(x):
            return value_and_log_det(self.branch, self.log_det_form, x, weighted_probes, tensors)
        return value_and_series(self.branch, x, weighted_probes, self.log_det_form)

    def _branch_and_exact_log_det(self, x: Tensor, tensors: Tensors | None) -> tuple[Tensor, Tensor]:
        if not self._has_derivatives(x):
            return value_and_exact_log_det(self.branch, self.log_det_form, x, tensors)
        if self.training:
            return differentiable_value_and_exact_log_det(self.branch, self.log_det_form, x, tensors)
        return self.branch(x), exact_log_det(self.branch, x, self.log_det_form)

    def _has_derivatives(self, x: Tensor) -> bool:
        """Whether x or a parameter of the branch is differentiated, backward or forward."""
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in self.branch.parameters())):
            return True
        return is_transformed(x, *self.branch.parameters())

    def _training_probe(self, x: Tensor, inputs: BlockInputs | None) -> WeightedProbe:
        if inputs is not None and inputs.probe is not None and inputs.series_weights is not None:
            return WeightedProbe(inputs.probe, inputs.series_weights)
        return RouletteEstimator.from_config(self.training_log_det).weighted_probe(x, per_sample=False)

    def _branch_and_log_det_in_training(
        self, x: Tensor, weighted_probe: WeightedProbe, tensors: Tensors | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (g(x), estimate), differentiable as `training_log_det` says."""
        config = self.training_log_det
        if config.memory_efficient:
            graphs = self.cuda_graphs if x.is_cuda else None
            return differentiable_value_and_log_det(
                self.branch,
                self.log_det_form,
                x,
                weighted_probe,
                config.neumann_gradient,
                config.bfloat16,
                tensors,
                graphs,
            )
        if config.neumann_gradient:
            return value_and_surrogate(self.branch, x, weighted_probe, self.log_det_form)
        return value_and_series(self.branch, x, [weighted_probe], self.log_det_form)

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.inverse_with_report(y)[0]

    @override
    def inverse_with_report(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Report]:
        """Return (x, report), x with its gradient in y and the parameters (`acf.flows.implicit`)."""
        refuse_transforms(self.inverse_once, y, *self.branch.parameters())
        try:
            solution = self.solve(y)
        except ConvergenceError as error:
            raise UnsolvedBlockError(str(error), self) from None
        x = solution.x
        return self._with_gradient(x, y) if self._has_derivatives(y) else x, Report({self: solution})

    @abstractmethod
    def solve(self, y: Tensor, tolerance: float | None = None) -> Solution:
        """Solve f(x) = y for y (B, C, H, W) by fixed-point iteration, with error bounds.

        Args:
            y: value of the block.
            tolerance: relative l2 error asked for; by default as small as the type of y allows
                (`acf.flows.fixed_point.invert`).

        Raises:
            NotContractiveError: the proven bound of g is not below 1.
            ConvergenceError: the promised accuracy was not reached.
        """

    @abstractmethod
    def _with_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x, the solution of f(x) = y, with its gradient in y and the parameters."""

    def lipschitz_bound(self) -> float:
        """Return the proven upper bound of Lip(g) for the present weights; infinite if any value is not finite."""
        if not all(tensor.isfinite().all() for tensor in self.branch.state_dict().values()):
            return math.inf
        upper = self.branch.lipschitz_bound(self.shape[1] * self.shape[2])
        return math.inf if math.isnan(upper) else upper

    def cached_lipschitz_bound(self) -> float:
        """Return `lipschitz_bound()`, computed anew only after a weight or buffer has changed.

        A hash of all values finds the changes, as torch's version counters miss what is written through `.data`.
        """
        digest = hashlib.blake2b()
        for tensor in self.branch.state_dict().values():
            digest.update(str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        key = digest.digest()
        if self._cached_bound is None or self._cached_bound[0] != key:
            self._cached_bound = (key, self.lipschitz_bound())
        return self._cached_bound[1]


def prepared_blocks(blocks: Sequence[ContractiveBlock], x: Tensor, noise: Noise) -> dict[nn.Module, BlockInputs]:
    """Return what each block needs for one pass over as many samples as x has.

    In training mode the lengths of the blocks' power series are systematic samples, so that the time of a pass hardly
    varies; they and the probes come from `noise`.
    """
    tensors = effective_tensors([block.branch for block in blocks])
    inputs = {block: BlockInputs(of_block) for block, of_block in zip(blocks, tensors, strict=True)}
    groups: dict[RouletteEstimator, list[ContractiveBlock]] = defaultdict(list)
    for block in blocks:
        if block.training and block.training_log_det.estimator == "series":
            groups[RouletteEstimator.from_config(block.training_log_det)].append(block)
    for estimator, group in groups.items():
        lengths = dict(zip(group, noise.lengths(estimator, len(group)), strict=True))
        for shape, alike in _by_shape(group).items():
            probes = noise.probes(estimator, (len(alike), *shape), x)
            for block, probe in zip(alike, probes.unbind(), strict=True):
                inputs[block] = replace(
                    inputs[block], series_weights=estimator.series_weights(lengths[block]), probe=probe
                )
    return {**inputs}  # type: ignore[dict-item]


def _by_shape(blocks: Sequence[ContractiveBlock]) -> dict[tuple[int, int, int], list[ContractiveBlock]]:
    groups: dict[tuple[int, int, int], list[ContractiveBlock]] = defaultdict(list)
    for block in blocks:
        groups[block.shape].append(block)
    return groups
