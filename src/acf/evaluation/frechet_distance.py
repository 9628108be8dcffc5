"""The Fréchet distance of two sets of feature vectors, as of two Gaussians, with its bias and its error."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean (d,) and unbiased covariance (d, d) of a set of feature vectors, float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Return the moments of feature vectors (n, d), n at least 2.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least two feature vectors, there are {len(features)}")
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (len(features) - 1))


def frechet_distance(one: Moments, other: Moments) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), in squared units of the features.

    It is the squared Wasserstein-2 distance of Gaussians with these moments (Fréchet's, arXiv 1706.08500). The trace of
    the root is the sum of the roots of the eigenvalues of a symmetric product, which are real and, up to rounding, not
    negative.
    """
    root = _root(one.covariance)
    values = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp(min=0)
    trace = one.covariance.trace() + other.covariance.trace() - 2 * values.sqrt().sum()
    return max(float((one.mean - other.mean).square().sum() + trace), 0.0)


def expected_between_equals(law: Moments, count: int, other_count: int) -> float:
    """Return what `frechet_distance` is on average between two finite sets drawn from one Gaussian: its bias at 0.

    With eigenvalues l of the covariance, c = 1/n + 1/m and c' = 1/(n - 1) + 1/(m - 1), to first order in c:

        c sum_i l_i + c'/2 sum_ij l_i l_j (1 + delta_ij) / (l_i + l_j).

    The first term is that of the means. The second is the mean of 1/2 sum_ij E_ij^2 / (l_i + l_j), the distance of
    S and S + E for small E (the Bures metric), under the law of Wishart. It holds for counts well above the number of
    features.
    """
    values = torch.linalg.eigvalsh(law.covariance).clamp(min=0)
    means = (1 / count + 1 / other_count) * values.sum()
    sums = values[:, None] + values
    products = values[:, None] * values * (1 + torch.eye(len(values), dtype=values.dtype, device=values.device))
    ratios = torch.where(sums > 0, products / sums, torch.zeros_like(sums))
    return float(means + 0.5 * (1 / (count - 1) + 1 / (other_count - 1)) * ratios.sum())


def bootstrap_error(one: Tensor, other: Tensor, repeats: int, generator: torch.Generator) -> float:
    """Return the standard error of the distance of two sets of feature vectors (n, d) and (m, d).

    It is the standard deviation over sets that are drawn from both with replacement, `repeats` times, at least 2.

    Args:
        one: features.
        other: features.
        repeats: number of draws.
        generator: source of the draws, on the CPU.
    """
    found = [
        frechet_distance(moments(_drawn(one, generator)), moments(_drawn(other, generator))) for _ in range(repeats)
    ]
    return float(torch.tensor(found, dtype=torch.float64).std())


def _drawn(features: Tensor, generator: torch.Generator) -> Tensor:
    return features[torch.randint(len(features), (len(features),), generator=generator).to(features.device)]


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric root of a symmetric matrix whose negative eigenvalues are rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
