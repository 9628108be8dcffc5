"""Gains of attention cores in queries, keys and values, searched for by ascent on the exact norm of the Jacobian.

Theorems 2, 3 and 4 of docs/mathematics.md bound each part and all together; nothing found may lie above.
"""

import math

import pytest
import torch
from torch import Tensor

from acf.lipschitz import (
    ClippedSelfAttention,
    DotProductSelfAttention,
    SinkhornSelfAttention,
    clipped_attention_constant,
    dot_attention_constant,
)
from tests.building_blocks.noise import noise
from tests.lipschitz.joint import ALL, joint_norm, largest_norm
from tests.lipschitz.loops import alternated, clipped_constant

Q, K, V = (0,), (1,), (2,)
SLACK = 1 + 1e-9


def starts(n: int, d: int, count: int = 12) -> Tensor:
    return noise(count, 3, n, d, seed=n)


def ball(layer: type, t: float) -> torch.nn.Module:
    """One head on two channels with sharpness t."""
    made = layer(2, 1).double()
    with torch.no_grad():
        made.sharpness.fill_(math.log(t / (2 - t)))
    return made


# Theorem 2.

dot = DotProductSelfAttention(2, 1).double()


def dot_gain(n: int, parts: tuple[int, ...], steps: int = 120) -> float:
    sizes = 10 ** noise(12, 3, 1, 1, seed=3)
    return largest_norm(dot.core, sizes * starts(n, 2), parts, steps) * dot_attention_constant(n)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_dot_stays_below_its_joint_constant(n):
    constant = dot_attention_constant(n)
    assert 0.5 * constant <= dot_gain(n, ALL) <= constant


@pytest.mark.parametrize("n", [2, 3, 6])
def test_dot_has_gain_one_in_the_queries_alone(n):
    """The scale's share of the derivative only takes away the radial part of dQ."""
    assert 0.97 <= dot_gain(n, Q) <= SLACK


@pytest.mark.parametrize("n", [2, 4])
def test_dot_stays_below_the_terms_of_keys_and_values(n):
    eta = math.e / math.sqrt(n - 1 + math.e**2)
    values = math.sqrt(dot_attention_constant(n) ** 2 - 1 - (1 + eta) ** 2)
    assert 0.5 <= dot_gain(n, K, 80) <= (1 + eta) * SLACK
    assert 1.2 <= dot_gain(n, V, 80) <= values * SLACK


# Theorem 3.


def clipped_attention(t: float) -> tuple[torch.nn.Module, float]:
    """(layer with w = r = 1, its constant)."""
    constant = clipped_attention_constant(*torch.tensor([t, t], dtype=torch.float64))
    return ball(ClippedSelfAttention, t), constant.item()


@pytest.mark.parametrize(("n", "reach"), [(2, 0.5), (3, 0.6), (5, 0.65)])
def test_clipped_softmax_stays_below_its_joint_constant(n, reach):
    layer, constant = clipped_attention(1.0)
    assert constant == pytest.approx(clipped_constant(1.0, 1.0), rel=1e-9)
    assert reach * constant <= largest_norm(layer.core, starts(n, 2, 24)) * constant <= constant


@pytest.mark.parametrize("t", [0.5, 1.9])
def test_clipped_softmax_stays_below_each_term(t):
    layer, constant = clipped_attention(t)
    keys = math.sqrt(constant**2 - math.cosh(t) ** 2 - t**2)
    in_queries, in_keys, in_values = (largest_norm(layer.core, starts(3, 2), p, 80) * constant for p in (Q, K, V))
    assert 0.98 * t <= in_queries <= t * SLACK
    assert t <= in_keys <= keys
    assert 1.1 <= in_values <= math.cosh(t)


def test_clipped_softmax_stays_a_contraction_while_its_parameters_climb():
    layer = ball(ClippedSelfAttention, 1.0)
    learnt = list(layer.parameters(recurse=False))
    before = [p.detach().clone() for p in learnt]
    assert 0.5 <= largest_norm(layer.core, starts(3, 2), steps=80, parameters=learnt) <= SLACK
    assert not any(torch.equal(a, b) for a, b in zip(before, learnt, strict=True))


# Theorem 4.


@pytest.mark.parametrize("t", [0.2, 1.9])
@pytest.mark.parametrize("n", [2, 3])
def test_sinkhorn_is_a_contraction(t, n):
    core = ball(SinkhornSelfAttention, t).core
    assert 0.99 <= largest_norm(core, starts(n, 2), steps=40) <= SLACK


@pytest.mark.parametrize("t", [0.2, 1.0, 1.9])
def test_sinkhorn_attains_its_bound_in_queries_and_keys(t):
    """Sqrt(2) t w / r = 1 for two tokens: neither the sqrt(2) nor the radius of the values can be improved."""
    core = ball(SinkhornSelfAttention, t).core
    assert 0.99 <= largest_norm(core, starts(2, 2), Q + K, 120) <= SLACK
    assert 0.96 / math.sqrt(2) <= largest_norm(core, starts(2, 2), Q, 60) <= SLACK / math.sqrt(2)
    assert largest_norm(core, starts(2, 2), V, 20) <= SLACK


def test_sinkhorn_stays_a_contraction_while_its_parameters_climb():
    layer = ball(SinkhornSelfAttention, 1.0)
    learnt = list(layer.parameters(recurse=False))
    assert 0.9 <= largest_norm(layer.core, starts(3, 2), Q + K, 80, parameters=learnt) <= SLACK


@pytest.mark.parametrize("n", [5, 8])
def test_sinkhorn_on_clusters(n):
    """Tokens in two unbalanced clusters, where scaling moves far from softmax."""
    core = ball(SinkhornSelfAttention, 1.9).core
    sign = torch.ones(n, 1, dtype=torch.float64)
    sign[-1] = -1
    qkv = sign * torch.tensor([0.9, 0.1], dtype=torch.float64) + 0.1 * starts(n, 2, 4)
    qkv[:, 2] *= 0.2
    assert 0.99 <= largest_norm(core, qkv, steps=30) <= SLACK


def test_values_longer_than_allowed_are_no_contraction():
    """The search can tell: the same scaling with values up to 1.2 r / (sqrt(2) t) exceeds 1."""
    layer = ball(SinkhornSelfAttention, 1.0)

    def longer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 1.2 * layer.core(q, k, v / 1.2)

    assert largest_norm(longer, starts(2, 2), Q + K) > 1.15


def test_the_joint_norm_is_that_of_the_jacobian():
    qkv, matrix = noise(2, 3, 2, 2), noise(4, 12)

    def linear(*parts: Tensor) -> Tensor:
        return (matrix @ torch.cat([p.flatten() for p in parts])).view(1, 1, 2, 2)

    for parts, columns in (
        (ALL, matrix),
        (Q, matrix[:, :4]),
        (V, matrix[:, 8:]),
        (Q + V, matrix[:, [*range(4), *range(8, 12)]]),
    ):
        expected = torch.linalg.matrix_norm(columns, 2)
        assert torch.allclose(joint_norm(linear, qkv, parts), expected.expand(2), rtol=1e-12)


def test_plain_scaling_of_the_reference_is_doubly_stochastic():
    p = alternated(noise(5, 5).exp().numpy())
    assert abs(p.sum(0) - 1).max() < 1e-14
    assert abs(p.sum(1) - 1).max() < 1e-14
