"""A flow that several processes train together, each on batches of its own."""

from typing import Any, cast

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from acf.errors import InputError
from acf.flows.classifying import ClassifyingFlow
from acf.flows.flow import Flow


class DataParallelFlow(DistributedDataParallel):
    """torch's DistributedDataParallel around a flow, with `log_prob` and `renormalise`.

    A backward pass through what it returns averages gradients over the processes; with `no_sync()` around all
    microbatches of a step but the last they are exchanged once. The arguments are those of DistributedDataParallel, the
    flow first, on the device of this process.

    Raises:
        InputError: the flow has classification heads, which `log_prob` would leave without gradients.
    """

    def __init__(self, module: Flow, *args: Any, **kwargs: Any) -> None:
        if isinstance(module, ClassifyingFlow):
            raise InputError(
                "DataParallelFlow trains densities, and this flow has classification heads: train it by `acf train "
                "--processes`, or build one without `classes`"
            )
        super().__init__(module, *args, **kwargs)

    @property
    def flow(self) -> Flow:
        """The flow itself: to sample, to certify and to save."""
        return cast(Flow, self.module)

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return log p(x), or log p(x | c), (B,) in nats, as `Flow.log_prob`, for the batch of this process."""
        z, log_abs_det = self(x, condition)
        return self.flow.base_log_prob(z) + log_abs_det

    def renormalise(self) -> None:
        """Update the estimated spectral norms, as is needed after each step of the optimiser."""
        self.flow.renormalise()
