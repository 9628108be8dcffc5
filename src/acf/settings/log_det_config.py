"""Settings of the estimators of log-determinants, in training and in evaluation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from acf.settings.section import MOST_EXACT, MOST_TERMS, Positive, Section, Terms


class LogDetConfig(Section):
    """How log|det(I + J_g)| is computed: estimated by a power series whose end is drawn at random, or exactly.

    The estimate is unbiased for every choice of these settings; they decide its variance and its cost.
    """

    estimator: Literal["series", "exact"] = Field(
        default="series",
        description="`series` estimates log-determinants by a power series with Russian roulette (arXiv 1906.02735, "
        "section 3.1). `exact` computes them from the dense Jacobian of each branch, for flows on at most "
        f"{MOST_EXACT} values, which needs as many products with it as there are values; all other keys here are "
        "without effect then. This project's addition, for vectors of few values.",
    )
    exact_terms: Terms = Field(
        default=2,
        description="Number of leading terms of the power series that are always computed, before a random number of "
        "further terms. The default of 2 is that of the code published with arXiv 1906.02735.",
    )
    distribution: Literal["poisson", "geometric"] = Field(
        default="poisson",
        description="Distribution of the number of further terms (arXiv 1906.02735, section 3.1). The Poisson "
        "distribution is the default of the code published with that paper.",
    )
    parameter: float = Field(
        default=2.0,
        gt=0,
        le=MOST_TERMS,
        description="Rate of the Poisson distribution, which is the mean number of further terms, or success "
        "probability p of the geometric distribution, which must lie below 1 and gives (1 - p) / p further terms on "
        "average. The default is the rate of the code published with arXiv 1906.02735.",
    )
    probe: Literal["rademacher", "gaussian"] = Field(
        default="rademacher",
        description="Distribution of the random vector that estimates traces: independent signs, or independent "
        "standard normal values. The default is this project's choice, because signs never have the larger variance "
        "for the trace of a matrix.",
    )

    @model_validator(mode="after")
    def _geometric_rate(self) -> Self:
        if self.distribution == "geometric" and not self.parameter < 1:
            raise ValueError("parameter of the geometric distribution must lie strictly between 0 and 1")
        if self.distribution == "geometric" and self.parameter < 1 / MOST_TERMS:
            raise ValueError(f"parameter of the geometric distribution must be at least {1 / MOST_TERMS}")
        return self


class TrainingLogDetConfig(LogDetConfig):
    """The estimator in training, with the way its gradient is formed."""

    neumann_gradient: bool = Field(
        default=True,
        description="Whether the gradient comes from the Neumann series, whose memory does not grow with the number of "
        "terms, instead of differentiating the estimate itself. Both are unbiased (arXiv 1906.02735, section 3.2).",
    )
    memory_efficient: bool = Field(
        default=True,
        description="Whether a block keeps little more than its input for the backward pass and computes its "
        "branch again there, instead of keeping all intermediate results. This project's way to the memory that "
        "arXiv 1906.02735, section 3.2, saves by computing gradients in the forward pass.",
    )
    bfloat16: bool = Field(
        default=False,
        description="Whether products with Jacobians, and the gradient through branches without attention, are "
        "computed in bfloat16. It needs `neumann_gradient` and `memory_efficient`. This project's addition, measured "
        "in docs/performance.md.",
    )

    solve_residual: float = Field(
        default=1e-3,
        gt=0,
        le=0.1,
        description="Largest residual at which the iteration of a monotone block stops in training, forward and "
        "backward, relative to max(1, l2 norm of the right-hand side); without effect on residual blocks. This "
        "project's choice; `benchmarks/monotone.py` measures what it changes.",
    )

    @model_validator(mode="after")
    def _bfloat16_needs_explicit_products(self) -> Self:
        if self.bfloat16 and not (self.neumann_gradient and self.memory_efficient):
            raise ValueError("bfloat16 needs neumann_gradient and memory_efficient")
        return self


class EvaluationLogDetConfig(LogDetConfig):
    """The estimator in evaluation.

    With a geometric number of further terms its variance is finite where the spectral radius of the Jacobian lies below
    sqrt(1 - p), which is 0.707 for p = 0.5. With a Poisson number it is infinite unless the Jacobian is nilpotent
    (docs/mathematics.md, Proposition 10c).
    """

    exact_terms: Terms = Field(
        default=20,
        description="Number of leading terms of the power series that are always computed, before a random number of "
        "further terms. The default of 20 is that of the code published with arXiv 1906.02735.",
    )
    distribution: Literal["poisson", "geometric"] = Field(
        default="geometric",
        description="Distribution of the number of further terms (arXiv 1906.02735, section 3.1). The geometric "
        "distribution is this project's choice, because its variance can be finite (docs/mathematics.md, "
        "Proposition 10c).",
    )
    parameter: float = Field(
        default=0.5,
        gt=0,
        le=MOST_TERMS,
        description="Success probability p of the geometric distribution, which must lie below 1 and gives (1 - p) / p "
        "further terms on average, or rate of the Poisson distribution, which is the mean number of further terms. The "
        "default is that of the code published with arXiv 1906.02735.",
    )
    probes: Positive = Field(
        default=1,
        description="Number of random vectors for the first exact term; the k-th exact term uses this number divided "
        "by 2^(k-1) and rounded down, but at least one. Several need at least one exact term. This project's addition, "
        "after hierarchical probing (arXiv 1302.4018), measured in docs/tables/evaluation.md.",
    )

    @model_validator(mode="after")
    def _probes_in_use(self) -> Self:
        if self.probes > 1 and self.exact_terms == 0:
            raise ValueError("several probes share the exact terms, so exact_terms must be at least 1")
        return self
