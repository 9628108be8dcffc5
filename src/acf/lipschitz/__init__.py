"""1-Lipschitz building blocks with proven bounds."""

from acf.lipschitz.activations import ELU, CLipSwish, LipSwish
from acf.lipschitz.attention import (
    ClippedSelfAttention,
    DotProductSelfAttention,
    L2SelfAttention,
    SinkhornSelfAttention,
)
from acf.lipschitz.bounds import attack
from acf.lipschitz.bounds.constants import clipped_attention_constant, dot_attention_constant, l2_attention_constant
from acf.lipschitz.branch import Branch, Reshape
from acf.lipschitz.dense import DenseLayer
from acf.lipschitz.join import ChannelSplit, Concatenation, ConvexShare
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.normalised_linear import NormalisedLinear
from acf.lipschitz.orthogonal_linear import OrthogonalLinear
from acf.lipschitz.pila import CPila
from acf.lipschitz.potential_layer import PotentialLayer

__all__ = [
    "ELU",
    "Branch",
    "CLipSwish",
    "CPila",
    "ChannelSplit",
    "ClippedSelfAttention",
    "Concatenation",
    "ConvexShare",
    "DenseLayer",
    "DotProductSelfAttention",
    "L2SelfAttention",
    "LipSwish",
    "LipschitzLayer",
    "NormalisedConv2d",
    "NormalisedLinear",
    "OrthogonalLinear",
    "PotentialLayer",
    "Reshape",
    "SinkhornSelfAttention",
    "attack",
    "clipped_attention_constant",
    "dot_attention_constant",
    "l2_attention_constant",
]
