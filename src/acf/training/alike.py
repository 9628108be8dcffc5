"""Comparing the weights of the processes that compute one training."""

from torch import nn

from acf.errors import TrainingError
from acf.runs.ranks import Ranks


def require_alike(module: nn.Module, step: int, ranks: Ranks) -> None:
    """Check that parameters and buffers are the same in all processes, after `step` steps.

    Raises:
        TrainingError: names the first that is not.
    """
    if (name := ranks.first_difference(module.state_dict())) is not None:
        raise TrainingError(
            f"step {step}: {name} differs between the processes, which compute the same from the same; one of their "
            "devices or libraries does not compute like the others"
        )
