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
    """Return each variant with attention against one without that is not its base and has as many blocks.

    Args:
        results: of the experiment; what is not measured yet may be missing.
        plain: for each variant with attention those without that else differ from it in size alone.

    Returns:
        One for each variant that has such a partner measured on the same images; of several it is the one whose number
        of parameters is nearest. Blocks of all scales and fully connected ones count, as the certificate has them.
    """
    models = {variant: runs[0] for variant, runs in results.metrics.items() if runs}
    partners = {}
    for variant, others in plain.items():
        if variant not in models:
            continue
        depth, parameters = len(models[variant].certificate.blocks), models[variant].parameters
        as_deep = [
            other
            for other in others
            if other in models and len(models[other].certificate.blocks) == depth and other != results.bases[variant]
        ]
        if as_deep:
            partners[variant] = min(as_deep, key=lambda other: abs(models[other].parameters - parameters))
    return partner_gains(results, DEPTH, partners, lambda variant, _: str(len(models[variant].certificate.blocks)))
