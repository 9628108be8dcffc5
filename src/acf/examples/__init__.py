"""Small trained models that come with the package, each a folder that `acf export` has written."""

from pathlib import Path
from typing import TYPE_CHECKING

from acf.errors import InputError, shown
from acf.flows.record import CONFIG

if TYPE_CHECKING:
    import torch

    from acf.flows.flow import Flow

FOLDER = Path(__file__).parent


def example_names() -> list[str]:
    """Return the names of the models that `acf.load_example` knows."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CONFIG}"))


def load_example(name: str = "digits", device: "torch.device | str" = "cpu") -> "Flow":
    """Return a small trained flow that comes with the package, in evaluation mode.

    `flow.origin.card` is its model card: what it was trained on, what was measured of it, and its limits.

    Args:
        name: one of `acf.example_names()`; "digits" is a flow with certified attention on 8 x 8 images of handwritten
            digits with 17 grey levels.
        device: where the flow goes.

    Raises:
        InputError: there is no such model.
        DataError: its files are damaged.
    """
    from acf.flows.storage import load

    if name not in example_names():
        raise InputError(f"no example {shown(name)}; there are: {', '.join(example_names())}")
    return load(FOLDER / name, device)
