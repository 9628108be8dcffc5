"""The states of torch's random generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the generators that training on `device` draws from, by their devices' types."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set torch's generators to states from `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for the time of the context, then put their states back."""
    state = random_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_state(state, device)
