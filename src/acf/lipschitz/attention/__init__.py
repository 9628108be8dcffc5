"""Self-attention over all positions of a feature map, each with a proven l2 Lipschitz bound."""

from acf.lipschitz.attention.dot import DotProductSelfAttention
from acf.lipschitz.attention.l2 import L2SelfAttention

__all__ = ["DotProductSelfAttention", "L2SelfAttention"]
