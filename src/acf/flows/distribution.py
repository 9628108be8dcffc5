"""A flow in the terms of torch.distributions: its density, and its map."""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Transform, constraints
from typing_extensions import override

from acf.errors import InputError
from acf.flows.flow import Flow
from acf.flows.logit import Logit
from acf.lipschitz.precision import first_parameter


class FlowDistribution(Distribution):
    """The density of a flow, p(x) or p(x | c); `flow.distribution()` makes it.

    `event_shape` is the flow's shape, (C, H, W) or (D,). `rsample` has the gradient of the exact inverse, once, in the
    parameters and the condition; `log_prob` is as `Flow.log_prob`: an estimate drawn anew in each call, or exact
    where the flow is so configured. The flow is not copied: its present weights and mode count.

    The support of images is where the logit is finite, a little more than [0, 1] (`Logit.domain`), and samples are
    those of the density, without the clamping to [0, 1) of `Flow.sample`. Mean, variance, entropy and divergences have
    no closed form and raise NotImplementedError, as torch does.

    Args:
        flow: the flow.
        condition: c, of a conditional flow: labels (*batch_shape,) or vectors (*batch_shape, k). A single label () or
            vector (k,) stands for all samples.
        validate_args: whether `log_prob` looks at values; shapes and types are checked in any case. By default as
            torch.distributions does.

    Raises:
        InputError: a condition that is missing, wrong, or given to a flow without one. It is a ValueError.
    """

    arg_constraints = {}  # noqa: RUF012 - as all torch.distributions have it
    has_rsample = True

    def __init__(self, flow: Flow, condition: Tensor | None = None, validate_args: bool | None = None) -> None:
        self.flow, self.condition = flow, condition
        self._trailing = _trailing_shape(flow)
        if condition is not None and condition.shape[condition.dim() - len(self._trailing) :] != self._trailing:
            expected = f"(..., {_listed(self._trailing)})"
            raise InputError(f"expected a condition of shape {expected}, got {tuple(condition.shape)}")
        batch_shape = torch.Size() if condition is None else condition.shape[: condition.dim() - len(self._trailing)]
        flow.checked_condition(self._rows(batch_shape), batch_shape.numel())
        super().__init__(batch_shape, torch.Size(flow.shape), validate_args=validate_args)

    @property
    @override
    def support(self) -> constraints.Constraint:
        """The vectors of real numbers, or the images where the logit is finite."""
        return _support(self.flow)

    @property
    def base(self) -> Distribution:
        """The standard normal density of z, a vector of D values."""
        like = cast(Tensor, first_parameter(self.flow))
        zeros = like.new_zeros(math.prod(self.event_shape))
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    @override
    def expand(self, batch_shape: Any, _instance: Any = None) -> "FlowDistribution":
        """Return the distribution with this batch shape: copies of the density, or of each condition's density."""
        new = self._get_checked_instance(FlowDistribution, _instance)
        batch_shape = torch.Size(batch_shape)
        new.flow, new._trailing = self.flow, self._trailing
        new.condition = None if self.condition is None else self.condition.expand((*batch_shape, *self._trailing))
        super(FlowDistribution, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @override
    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draw x (*sample_shape, *batch_shape, *event_shape) = f^-1(z), z from torch's global generator on the CPU.

        Raises:
            NotContractiveError, ConvergenceError: as `Flow.invert`.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        like = cast(Tensor, first_parameter(self.flow))
        z = torch.randn(shape.numel(), math.prod(self.event_shape), dtype=like.dtype, device="cpu").to(like.device)
        x = self.flow.inverse(z, differentiable=torch.is_grad_enabled(), condition=self._rows(shape))
        return x.reshape(shape + self.event_shape)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x), or log p(x | c), in nats, of the shape of x without `event_shape`, broadcast.

        Raises:
            InputError: wrong shape or type, or values outside the support, NaN or infinity. It is a ValueError.
        """
        leading = value.dim() - len(self.event_shape)
        if leading < 0 or value.shape[leading:] != self.event_shape:
            raise InputError(f"expected values of shape (..., {_listed(self.event_shape)}), got {tuple(value.shape)}")
        try:
            shape = torch.broadcast_shapes(value.shape[:leading], self.batch_shape)
        except RuntimeError:
            raise InputError(
                f"values of shape {tuple(value.shape)} do not broadcast with batch_shape {tuple(self.batch_shape)}"
            ) from None
        computed = value.shape[:leading] if self.condition is None else shape
        x = value.expand(computed + self.event_shape).reshape(-1, *self.event_shape)
        of = self.flow.log_prob if self._validate_args else self.flow.log_prob_unchecked
        return of(x, self.flow.checked_condition(self._rows(computed), len(x))).reshape(computed).expand(shape)

    def _rows(self, shape: torch.Size) -> Tensor | None:
        """The condition of samples of this shape, in rows."""
        if self.condition is None:
            return None
        return self.condition.expand((*shape, *self._trailing)).reshape(-1, *self._trailing)


class FlowTransform(Transform):
    """z = f(x), or f(x; c), as a transform: x (..., *shape) to z (..., D), with its inverse and log-determinant.

    The density is `TransformedDistribution(base, [FlowTransform(flow).inv])`. `log_abs_det_jacobian` is an
    estimate or exact, as `Flow.forward`; the inverse has a gradient once, as `Flow.inverse`.

    Args:
        flow: the flow.
        condition: c of all samples, a label () or a vector (k,); for conditions that differ use `FlowDistribution`.
        cache_size: 0 or 1, as in torch: whether the last pair (x, z) is kept, so that inverting z costs nothing.

    Raises:
        InputError: as `FlowDistribution`.
    """

    bijective = True

    def __init__(self, flow: Flow, condition: Tensor | None = None, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.flow = flow
        self.condition = flow.checked_condition(None if condition is None else condition.unsqueeze(0), 1)

    @property
    @override
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        """As `FlowDistribution.support`."""
        return _support(self.flow)

    @property
    @override
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """The vectors z."""
        return constraints.independent(constraints.real, 1)

    @override
    def with_cache(self, cache_size: int = 1) -> "FlowTransform":
        if self._cache_size == cache_size:
            return self
        return FlowTransform(self.flow, None if self.condition is None else self.condition[0], cache_size)

    @override
    def _call(self, x: Tensor) -> Tensor:
        leading = self._leading(x, self.flow.shape)
        return self.flow.transform(x.reshape(-1, *self.flow.shape), self.condition).reshape(
            *leading, math.prod(self.flow.shape)
        )

    @override
    def _inverse(self, y: Tensor) -> Tensor:
        leading = self._leading(y, (math.prod(self.flow.shape),))
        z = y.reshape(-1, y.shape[-1])
        x = self.flow.inverse(z, differentiable=torch.is_grad_enabled(), condition=self.condition)
        return x.reshape(*leading, *self.flow.shape)

    @override
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det dz/dx| in nats, of the shape of x without that of a sample."""
        leading = self._leading(x, self.flow.shape)
        return self.flow(x.reshape(-1, *self.flow.shape), self.condition)[1].reshape(leading)

    @override
    def forward_shape(self, shape: Any) -> torch.Size:
        leading = self._leading(torch.empty(shape, device="meta"), self.flow.shape)
        return torch.Size((*leading, math.prod(self.flow.shape)))

    @override
    def inverse_shape(self, shape: Any) -> torch.Size:
        values = (math.prod(self.flow.shape),)
        return self._leading(torch.empty(shape, device="meta"), values) + self.flow.shape

    @staticmethod
    def _leading(x: Tensor, shape: tuple[int, ...]) -> torch.Size:
        """The shape of x without that of a sample."""
        if x.dim() < len(shape) or x.shape[x.dim() - len(shape) :] != torch.Size(shape):
            raise InputError(f"expected a shape (..., {_listed(shape)}), got {tuple(x.shape)}")
        return x.shape[: x.dim() - len(shape)]


def _support(flow: Flow) -> constraints.Constraint:
    values: constraints.Constraint = constraints.real
    if isinstance(flow.preprocessing, Logit):
        values = constraints.interval(*flow.preprocessing.domain(cast(Tensor, first_parameter(flow)).dtype))
    return constraints.independent(values, len(flow.shape))


def _trailing_shape(flow: Flow) -> tuple[int, ...]:
    """The shape of one condition."""
    size = flow.config.condition.size
    return () if size is None else (size,)


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
