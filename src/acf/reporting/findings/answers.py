"""The claims on attention in short: an answer to each, drawn from the gains of all experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acf.reporting.findings.gains import ANSWER_HEADINGS, HIGHER, LOWER, Gain, answer_cells, tally
from acf.reporting.findings.pair_gains import Study, beyond_depth, bits_gains, found_gains, matched_gains, noise_gains
from acf.reporting.findings.quantities import BEYOND, BITS, DISTANCE, ERRORS, EXCESS, RISE, WHOLE
from acf.reporting.findings.speed import on_convergence
from acf.reporting.findings.study import AMONG
from acf.reporting.findings.survey import on_certificates
from acf.reporting.wording import NOT_AVAILABLE, markdown_table

AIM = 0.02
"""The gain in bits/dim at equal parameters and steps that this project aims for."""
OWN, WITHIN = "attention in blocks of its own", "attention within branches, as in the paper"
"""Where attention is; the paper has it before the last convolution of every branch."""
HOW_TO_READ = (
    "The columns count attentive variants whose value is *lower* than that of the flow they are compared with, or "
    "*higher*, beyond the error, and those of which that is *undecided*; against both base and depth, *lower* is lower "
    "than both and *higher* is higher than at least one. Comparisons with a caveat, such as one training each, which "
    "is no evidence for an architecture, are in the last column alone. The answer is that of the others: *yes* if all "
    "are lower, *in part* if some are and none is higher, *mixed* if some are lower and some higher, *no* if all are "
    "higher, *not found* if some are higher and none is lower, *undecided* if none is either, *with caveats only* if "
    "there are no others, and *not available* if nothing was compared."
)


def answers_part(study: Study) -> str:
    """Return whether attention helps, a table of the claims that are gains, and a sentence on each of the others."""
    by_steps, by_seconds = bits_gains(study, "attention"), matched_gains(study)
    claims = {
        **{
            f"Fewer bits/dim, at equal parameters and steps, {place}": (BITS, gains)
            for place, gains in _by_place(study, by_steps).items()
        },
        "Fewer bits/dim than both the base and a flow of as many blocks": (BEYOND, beyond_depth(study)),
        "Fewer bits/dim, at equal seconds": (WHOLE, by_seconds),
        "Better interpolation": (EXCESS, found_gains(study, "interpolation")),
        "Better samples": (DISTANCE, found_gains(study, "frechet")),
        **{
            f"Resilience to noise, {place}": (RISE, gains)
            for place, gains in _by_place(study, noise_gains(study)).items()
        },
        "Resilience to noise, in latent space": (ERRORS, found_gains(study, "noise-neighbours")),
    }
    rows = [[claim, what, *answer_cells(gains)] for claim, (what, gains) in claims.items()]
    said = {
        "Faster convergence": on_convergence(study, "attention"),
        "Other flows without attention": tally(bits_gains(study, "base"), BITS, AMONG["base"]),
        "Certificates": on_certificates(study),
    }
    bullets = "".join(f"- **{claim}**: {sentence}\n" for claim, sentence in said.items())
    table = markdown_table(["claim", "measured by", *ANSWER_HEADINGS], rows, left=3)
    return f"{_summary(study, by_steps, by_seconds)}\n{table}\n{HOW_TO_READ}\n\n{bullets}"


def by_base_part(study: Study) -> str:
    """Return the answers of test bits/dim and of noise for each base, by its name in all experiments together."""
    quantities = {BITS: bits_gains(study, "attention"), RISE: noise_gains(study)}
    rows = [
        [base, what, *answer_cells([one for one in gains if one.base == base])]
        for base in dict.fromkeys(one.base for gains in quantities.values() for one in gains)
        for what, gains in quantities.items()
    ]
    return markdown_table(["base", "measured by", *ANSWER_HEADINGS], rows, left=3) if rows else f"{NOT_AVAILABLE}\n"


def _by_place(study: Study, gains: Sequence[Gain]) -> Mapping[str, list[Gain]]:
    """Return the gains by where attention is; attention within branches only where there are any."""
    within = {(experiment.name, variant) for experiment in study for variant in experiment.within_branches}
    places: dict[str, list[Gain]] = {OWN: []}
    for one in gains:
        places.setdefault(WITHIN if (one.experiment, one.variant) in within else OWN, []).append(one)
    return places


def _summary(study: Study, by_steps: Sequence[Gain], by_seconds: Sequence[Gain]) -> str:
    """Return a paragraph on test bits/dim; "" where nothing is compared."""
    said = []
    for place, gains in _by_place(study, by_steps).items():
        said += _counted(f"with {place}, at equal parameters and steps", gains)
    said += _counted("at equal seconds of training", by_seconds)
    firm = f"Of the comparisons without caveats, beyond the error: {'; '.join(said)}. " if said else ""
    return f"**Does attention lower test bits/dim?** {firm}{_on_aim(by_steps)}\n" if by_steps else ""


def _on_aim(gains: Sequence[Gain]) -> str:
    """Return which gains at equal parameters and steps are beyond the error and are estimated as at least `AIM`."""
    reached = [one for one in gains if one.found == LOWER and one.gain >= AIM]
    named = [", ".join([f"{one.name} by {one.text}", *one.caveats]) for one in reached]
    return (
        f"Lower beyond the error at equal parameters and steps, with an estimated gain of at least {AIM}: "
        f"{'; '.join(named) or 'none'}."
    )


def _counted(where: str, gains: Sequence[Gain]) -> list[str]:
    firm = [one.found for one in gains if not one.caveats]
    lower, higher = firm.count(LOWER), firm.count(HIGHER)
    return [f"{where}, {lower or 'none'} of {len(firm)} came out lower and {higher or 'none'} higher"] if firm else []
