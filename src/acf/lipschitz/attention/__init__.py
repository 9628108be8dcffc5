"""Self-attention over all positions of a feature map, each with a proven l2 Lipschitz bound."""

from acf.lipschitz.attention.clip import ClippedSelfAttention
from acf.lipschitz.attention.dot import DotProductSelfAttention
from acf.lipschitz.attention.l2 import L2SelfAttention
from acf.lipschitz.attention.sinkhorn import SinkhornSelfAttention

__all__ = ["ClippedSelfAttention", "DotProductSelfAttention", "L2SelfAttention", "SinkhornSelfAttention"]
