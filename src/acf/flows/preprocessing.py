"""The first map of a flow: from the values of the data to maps of unbounded values."""

from abc import abstractmethod

from torch import Tensor

from acf.flows.bijection import Bijection


class Preprocessing(Bijection):
    """A bijection that knows which values the data can have."""

    @abstractmethod
    def require_values(self, x: Tensor) -> None:
        """Check that x has values that the data can have, by one transfer from its device.

        Raises:
            InputError: it has others, NaN or infinity; says which.
        """

    @abstractmethod
    def into_range(self, x: Tensor) -> Tensor:
        """Return x with values outside the range of the data moved to its ends."""
