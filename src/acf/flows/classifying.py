"""A flow that also tells the classes of what it has a density of."""

from torch import Tensor

from acf.flows.flow import Flow
from acf.flows.heads import ClassificationHeads
from acf.flows.multiscale import MultiScale
from acf.flows.noise import SharedNoise
from acf.flows.preprocessing import Preprocessing
from acf.lipschitz.not_compiled import not_compiled
from acf.lipschitz.precision import autocast_off, refuse_backward_in_autocast
from acf.runs.ranks import BatchShare
from acf.settings.config import ModelConfig


class ClassifyingFlow(Flow):
    """A flow with classification heads, p(y | x) beside p(x); built by `acf.build` with `classes` in the configuration.

    The heads read the features at the end of every scale and change none of them: density, inverse and certificate are
    those of the flow without heads.

    Attributes:
        heads: the heads.
    """

    def __init__(self, config: ModelConfig, preprocessing: Preprocessing, bijection: MultiScale) -> None:
        super().__init__(config, preprocessing, bijection)
        assert config.classes is not None
        # Drawn last, so that all other weights are those of the flow without heads.
        self.heads = ClassificationHeads(bijection.shapes, config.head_width, config.classes)

    def classify(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the logits (B, K) of p(y | x) for x (B, ...), without the cost of the log-determinant.

        The first batch in training mode sets scales, as in `forward`, whose errors it has.
        """
        self._check(x)
        return self.classify_unchecked(x, self.checked_condition(condition, x.shape[0]))

    def log_prob_and_logits(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `log_prob(x)` (B,) and `classify(x)` (B, K) from one pass; errors as `forward`."""
        self._check(x)
        return self.log_prob_and_logits_unchecked(x, self.checked_condition(condition, x.shape[0]))

    def classify_unchecked(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return `classify(x, condition)` for values that are known to be possible, as `log_prob_unchecked` does."""
        self._check_form(x)
        self._require_no_bypass()
        with autocast_off(x.device.type):
            inputs = self.preprocessing.transform(x)
            _, features = self.bijection.transform_with_features(inputs, self._features(condition))
            logits = self.heads(features)
        refuse_backward_in_autocast(logits)
        return logits

    @not_compiled
    def log_prob_and_logits_unchecked(
        self, x: Tensor, condition: Tensor | None = None, share: BatchShare | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `log_prob_and_logits(x, condition)` likewise; `share` as in `log_prob_unchecked`."""
        self._check_form(x)
        noise = self._noise(x) if share is None else SharedNoise(share)
        z, log_abs_det, features = self._with_features(x, condition, noise)
        with autocast_off(x.device.type):
            logits = self.heads(features)
        refuse_backward_in_autocast(logits)
        return self.base_log_prob(z) + log_abs_det, logits
