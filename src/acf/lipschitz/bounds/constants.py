"""Closed-form Lipschitz constants of self-attention in the Frobenius norm; proofs in docs/mathematics.md.

Those that depend on the number of tokens are computed once in double precision and rounded up by a relative 1e-9.
"""

import math
from functools import cache

import torch
from scipy.special import lambertw
from torch import Tensor

ROUND_UP = 1 + 1e-9


def _largest_ratio(n: int, power: float) -> float:
    """Return the maximum over 1 < D <= n of lam(D) / D**power, lam(D) = (D - 1) / D * ln((n - 1) / (D - 1)).

    With x = D - 1 the logarithmic derivative has the sign of 1 - (1 + power) x / (1 + x) - 1 / ln((n - 1) / x),
    which falls strictly on (0, n - 1): the maximum is its only zero.
    """
    from scipy.optimize import brentq  # takes half a second, and few flows need it

    top = n - 1

    def slope(x: float) -> float:
        return 1 - (1 + power) * x / (1 + x) - 1 / math.log(top / x)

    x = brentq(slope, top * 1e-12, top / math.e, xtol=1e-14)
    return x * (1 + x) ** (-1 - power) * math.log(top / x) * ROUND_UP


@cache
def l2_attention_constant(n_tokens: int) -> float:
    """Return an upper bound of the Lipschitz constant of Q -> softmax_j(-b |q_i - q_j|^2) Q for every b > 0.

    Lambda_N = N^(1/4) + 2 M + 2 sqrt(kappa), M = W_0((N - 1) / e) with Lambert's W, and
    kappa = min over T >= 0 of T sqrt(N) mu + (N - 1) nu exp(-1 - T), mu = max lam(D) / sqrt(D), nu = max lam(D) / D
    (Theorem 1 of docs/mathematics.md; sharpens Kim et al., arXiv 2006.04710, Theorem 3.2).
    """
    n = _checked(n_tokens)
    if n == 1:
        return 1.0
    m = float(lambertw((n - 1) / math.e).real)
    mu, nu = _largest_ratio(n, 0.5), _largest_ratio(n, 1.0)
    # Every T >= 0 gives a valid bound; this one makes the derivative zero where that is possible.
    t = max(0.0, math.log((n - 1) * nu / (math.sqrt(n) * mu)) - 1)
    kappa = t * math.sqrt(n) * mu + (n - 1) * nu * math.exp(-1 - t)
    return (n**0.25 + 2 * m + 2 * math.sqrt(kappa)) * ROUND_UP


@cache
def dot_attention_constant(n_tokens: int) -> float:
    """Return an upper bound of the joint Lipschitz constant in (Q, K, V) of Lipschitz-normalised dot-product attention.

    The map is softmax(Q K^T / c) V with c = max(u v, u w, v w), u = |Q|_F, v = max |k_i|, w = max |v_i|
    (Theorem 2 of docs/mathematics.md; the layer of Dasoulas et al., arXiv 2103.04886). The constant is
    sqrt(1 + (1 + eta)^2 + min((1 + pi)^2, pi^2 + (1 + eps)^2)), eta = e / sqrt(N - 1 + e^2),
    pi = sqrt(1 + sinh(1)^2 / N), eps = eta sqrt(1 + 2 / sqrt(N) + (e^2 - 3) / N); it tends to 2.
    """
    n = _checked(n_tokens)
    if n == 1:
        return 1.0
    e2 = math.exp(2)
    eta = math.e / math.sqrt(n - 1 + e2)
    norm = math.sqrt(1 + math.sinh(1) ** 2 / n)
    column = eta * math.sqrt(1 + 2 / math.sqrt(n) + (e2 - 3) / n)
    values = min((1 + norm) ** 2, norm**2 + (1 + column) ** 2)
    return math.sqrt(1 + (1 + eta) ** 2 + values) * ROUND_UP


def clipped_attention_constant(t: Tensor, ratio: Tensor) -> Tensor:
    """Return an upper bound of the joint Lipschitz constant in (Q, K, V) of attention on clipped tokens, elementwise.

    The map is softmax(t Q' K'^T / r^2) V' with queries and keys clipped to length r and values to length w, and
    ratio = t w / r. The bound sqrt(cosh(t)^2 + ratio^2 (1 + b(t)^2)) holds for every number of tokens (Theorem 3 of
    docs/mathematics.md). Differentiable; t > 0.
    """
    return (t.cosh().square() + ratio.square() * (1 + _key_factor_square(t))).sqrt()


def _key_factor_square(t: Tensor) -> Tensor:
    """b(t)^2 = max over B of 4 B (1 - B) (1 + e B)^2 / (1 + e) with e = exp(2 t) - 1."""
    e = torch.expm1(2 * t)
    m = 3 * e - 2
    # The positive root of 4 e B^2 - m B - 1, in the form that does not cancel; m > 0 only where e > 2/3.
    larger = (m.square() + 16 * e).sqrt() + m.abs()
    b = torch.where(m > 0, larger / (8 * e.clamp_min(0.5)), 2 / larger)
    return 4 * b * (1 - b) * (1 + e * b).square() / (1 + e)


def _checked(n_tokens: int) -> int:
    if n_tokens < 1:
        raise ValueError(f"attention needs at least one token, got {n_tokens}")
    return int(n_tokens)
