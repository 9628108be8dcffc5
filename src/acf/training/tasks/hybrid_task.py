"""The density of images and their labels, by one flow (arXiv 1906.02735, section 5.4)."""

from collections.abc import Mapping

from torch import Tensor

from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.runs.ranks import BatchShare
from acf.settings.config import TrainingConfig
from acf.training.tasks.classification_task import Classification, label_measures, with_heads
from acf.training.tasks.density_task import Density


class Hybrid:
    """The loss is w (-log2 p(x) / D + log2(levels)) - log2 p(y | x), with w = `training.task.likelihood_weight`.

    With D = C H W and w = lambda D it is, up to a constant and in bits, the objective lambda log p(x) + log p(y | x) of
    arXiv 1906.02735, section 5.4: its lambda = 1/D is w = 1, and lambda = 1 is w = D.
    """

    measures = (*Density.measures, *Classification.measures)

    def __init__(self, config: TrainingConfig) -> None:
        """Take the weight w from the settings."""
        self._weight = config.task.likelihood_weight
        self._density, self._classification = Density(config), Classification(config)

    def measure(self, flow: Flow, x: Tensor, labels: Tensor | None, share: BatchShare | None) -> dict[str, Tensor]:
        """Return what both tasks measure, from one pass through the flow."""
        log_prob, logits = with_heads(flow).log_prob_and_logits_unchecked(x, share=share)
        return {"bits_per_dim": bits_per_dim_of(log_prob, flow.config), **label_measures(logits, labels)}

    def loss(self, measured: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of both losses, that of the density with the weight w."""
        return self._weight * self._density.loss(measured) + self._classification.loss(measured)
