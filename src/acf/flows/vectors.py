"""From vectors of real numbers to maps of one position."""

from torch import Tensor
from typing_extensions import override

from acf.flows.inputs import require_finite
from acf.flows.preprocessing import Preprocessing


class Vectors(Preprocessing):
    """x (B, D) -> (B, D, 1, 1): a vector is a map of D channels at one position; the log-determinant is 0."""

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform(x), x.new_zeros(x.shape[0])

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x.unsqueeze(-1).unsqueeze(-1)

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return y.flatten(1)

    @override
    def require_values(self, x: Tensor) -> None:
        """Check that all values are finite, or raise InputError."""
        require_finite(x)

    @override
    def into_range(self, x: Tensor) -> Tensor:
        """Return x, as every vector is possible."""
        return x
