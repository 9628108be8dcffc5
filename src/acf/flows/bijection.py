"""The interface of all bijections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from typing_extensions import override

from acf.flows.fixed_point import Solution
from acf.flows.prepared import Prepared
from acf.lipschitz.kernels.stack import stacked
from acf.lipschitz.precision import autocast_off, first_parameter, refuse_backward_in_autocast, require_full_precision


@dataclass(frozen=True)
class Report:
    """How an inverse was computed.

    Attributes:
        solutions: for each bijection within whose inverse is iterative, the solution with its error bound and cost.
    """

    solutions: Mapping[Bijection, Solution] = field(default_factory=dict)

    def merged(self, other: Report) -> Report:
        """Return a report of both inverses together."""
        return Report({**self.solutions, **other.solutions})


class Bijection(nn.Module, ABC):
    """An invertible map f of batches with the logarithm of its absolute Jacobian determinant.

    A new bijection must implement `forward` and `inverse`. It may implement `transform` where f(x) alone costs less
    than `forward`, and `inverse_with_report` where its inverse is iterative or made of others.
    """

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` with autocast off; a backward pass under autocast is refused by an InputError.

        Raises:
            InputError: x or the bijection is float16 or bfloat16, or their types differ.
        """
        require_full_precision(x, first_parameter(self), type(self).__name__)
        with autocast_off(x.device.type):
            y, log_abs_det = super().__call__(x, *args, **kwargs)
        refuse_backward_in_autocast(y)
        refuse_backward_in_autocast(log_abs_det)
        return y, log_abs_det

    def as_part(self, x: Tensor, prepared: Prepared | None) -> tuple[Tensor, Tensor]:
        """Call `forward` as a part of a bijection that was itself called, so that nothing is checked twice.

        Where log_abs_det is the same for all samples it may be a scalar.
        """
        return super().__call__(x)

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y, log_abs_det): y = f(x) and log|det df/dx| in nats, shape (B,), for x (B, ...)."""

    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return f(x) alone, where the log-determinant is not needed.

        Args:
            x: (B, ...).
            condition: features (B, width) of what f depends on beside x (`acf.flows.conditional`).
        """
        return self(x)[0]

    @abstractmethod
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return x with f(x) = y, differentiable at least once in y and the parameters; arguments as `transform`."""

    def inverse_with_report(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Report]:
        """Return (x, report): x with f(x) = y, and how each iterative inverse within was found.

        Raises:
            NotContractiveError: a contractive block has no proof of contraction.
            UnsolvedBlockError: the iteration of a contractive block did not converge; it carries that block.
        """
        return self.inverse(y, condition), Report()


class PreparedBijection(Bijection):
    """A bijection with contractive blocks, which takes what was prepared for them together (`acf.flows.prepared`)."""

    @override
    def as_part(self, x: Tensor, prepared: Prepared | None) -> tuple[Tensor, Tensor]:
        return nn.Module.__call__(self, x, prepared)

    @abstractmethod
    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        """Return (y, log_abs_det) as any bijection; what was not prepared is made on the way."""


class BijectionList(nn.ModuleList):
    """An `nn.ModuleList` of bijections only."""

    def __init__(self, bijections: Iterable[Bijection] = ()) -> None:
        super().__init__(bijections)

    @override
    def __iter__(self) -> Iterator[Bijection]:
        return cast(Iterator[Bijection], super().__iter__())


class Chain(PreparedBijection):
    """Bijections one after the other, first to last; log-determinants add up."""

    def __init__(self, *bijections: Bijection) -> None:
        super().__init__()
        self.bijections = BijectionList(bijections)

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        of_samples, of_all = [x.new_zeros(x.shape[0])], []  # type: ignore[var-annotated]
        for bijection in self.bijections:
            x, log_abs_det = bijection.as_part(x, prepared)
            (of_samples if log_abs_det.dim() else of_all).append(log_abs_det)
        total = stacked(of_samples).sum(0)
        return x, total + stacked(of_all).sum() if of_all else total

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        for bijection in self.bijections:
            x = bijection.transform(x, condition)
        return x

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.inverse_with_report(y, condition)[0]

    @override
    def inverse_with_report(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Report]:
        report = Report()
        for bijection in reversed(list(self.bijections)):
            y, solved = bijection.inverse_with_report(y, condition)
            report = report.merged(solved)
        return y, report
