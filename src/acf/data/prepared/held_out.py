"""Which training images a training holds out for validation: the same ones for every seed."""

import torch
from torch import Tensor


def held_out_order(count: int) -> Tensor:
    """Return the numbers of all `count` training images in the order in which they are held out for validation.

    A training that holds out n of them holds out the first n of this order.
    """
    return torch.randperm(count, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
