"""Test bits/dim of variants with attention against those without that have as many blocks.

Attention that comes in blocks of its own makes a flow deeper than its base. What the depth alone is worth is no gain of
attention. An experiment needs a variant without attention of more, narrower blocks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acf.reporting.findings_file import PairFinding
from acf.reporting.partner_gains import partner_gains
from acf.reporting.results import Results

DEPTH = "bits_per_dim, equal depth"
"""Name of the quantity."""


def matched_depth(results: Results, plain: Mapping[str, Sequence[str]]) -> list[PairFinding]:
    """Return each variant with attention against one without that has as many blocks and was trained for as many steps.

    Args:
        results: of the experiment; what is not measured yet may be missing.
        plain: for each variant with attention those without that it is compared with.

    Returns:
        One for each variant that has such a partner measured on the same images; of several it is the first.
    """
    depths = {variant: len(runs[0].certificate.blocks) for variant, runs in results.metrics.items() if runs}
    lengths = {variant: (depth, results.metrics[variant][0].train_steps) for variant, depth in depths.items()}
    partners = {}
    for variant, others in plain.items():
        alike = [other for other in others if variant in lengths and lengths[variant] == lengths.get(other)]
        if alike:
            partners[variant] = alike[0]
    return partner_gains(results, DEPTH, partners, lambda variant, _: f"{depths[variant]}")
