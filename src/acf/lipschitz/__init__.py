"""1-Lipschitz building blocks with proven bounds."""

from acf.lipschitz.activations import ELU, LipSwish
from acf.lipschitz.attention import DotProductSelfAttention, L2SelfAttention
from acf.lipschitz.branch import Branch, ConvexShare
from acf.lipschitz.constants import dot_attention_constant, l2_attention_constant
from acf.lipschitz.normalised import NormalisedConv2d, NormalisedLinear

__all__ = [
    "ELU",
    "Branch",
    "ConvexShare",
    "DotProductSelfAttention",
    "L2SelfAttention",
    "LipSwish",
    "NormalisedConv2d",
    "NormalisedLinear",
    "dot_attention_constant",
    "l2_attention_constant",
]
