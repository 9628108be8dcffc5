"""The labels of images alone."""

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import cross_entropy

from acf.errors import InputError
from acf.flows.classifying import ClassifyingFlow
from acf.flows.flow import Flow
from acf.runs.ranks import BatchShare
from acf.settings.config import TrainingConfig


class Classification:
    """The loss is -log2 p(y | x), in bits per label; no log-determinant is computed."""

    measures = ("cross_entropy", "accuracy")

    def __init__(self, config: TrainingConfig) -> None:
        """Take nothing from the settings."""

    def measure(self, flow: Flow, x: Tensor, labels: Tensor | None, share: BatchShare | None) -> dict[str, Tensor]:
        """Return -log p(y | x) in nats, and whether the most probable class is y, of each image."""
        return label_measures(with_heads(flow).classify_unchecked(x), labels)

    def loss(self, measured: Mapping[str, Tensor]) -> Tensor:
        """Return the cross-entropy in bits."""
        return measured["cross_entropy"] / math.log(2)


def with_heads(flow: Flow) -> ClassifyingFlow:
    """Return the flow, which has classification heads.

    Raises:
        InputError: it has none.
    """
    if not isinstance(flow, ClassifyingFlow):
        raise InputError("this task needs a flow with classification heads: build it with `classes`")
    return flow


def label_measures(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Return -log p(y | x) in nats and whether the largest of the logits (B, K) is that of y, 1 or 0, by image.

    Raises:
        InputError: there are no labels.
    """
    if labels is None:
        raise InputError("this task needs the labels of the images")
    return {
        "cross_entropy": cross_entropy(logits, labels, reduction="none"),
        "accuracy": (logits.detach().argmax(1) == labels).to(logits.dtype),
    }
