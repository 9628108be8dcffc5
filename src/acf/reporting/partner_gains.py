"""Test bits/dim of variants with attention against a partner without it that is not their base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

from acf.reporting.findings_file import PairFinding
from acf.reporting.pairing import Pairing
from acf.reporting.results import Results
from acf.reporting.wording import count


def partner_gains(
    results: Results, quantity: str, partners: Mapping[str, str], at: Callable[[str, str], str]
) -> list[PairFinding]:
    """Return the gain of each variant over its partner that were measured on the same images; intervals hold at once.

    Args:
        results: of the experiment.
        quantity: name of what is compared.
        partners: for each variant the one that it is compared with; both are measured.
        at: what the two have in common, of a variant and its partner.
    """
    pairing = Pairing(results)
    gains = {variant: gain for variant, other in partners.items() if (gain := pairing.gain(other, variant)) is not None}
    found = []
    for variant, gain in gains.items():
        other = partners[variant]
        (value, value_se), (of_base, of_base_se) = (_mean(results, name) for name in (variant, other))
        low, high = gain.interval(len(gains))
        found.append(
            PairFinding(
                quantity=quantity,
                at=at(variant, other),
                variant=variant,
                base=other,
                value=value,
                value_se=value_se,
                of_base=of_base,
                of_base_se=of_base_se,
                gain=gain.mean,
                gain_se=gain.se,
                low=low,
                high=high,
                over=f"{count(gain.images)} test {results.unit}",
                seeds=len(results.metrics[variant]),
                base_seeds=len(results.metrics[other]),
            )
        )
    return found


def _mean(results: Results, variant: str) -> tuple[float, float]:
    """Return mean bits/dim over seeds, and the standard error over test images."""
    runs = results.metrics[variant]
    return fmean(one.bits_per_dim for one in runs), fmean(one.bits_per_dim_se for one in runs)
