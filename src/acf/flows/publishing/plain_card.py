"""Model cards: the parts that all of them have, and the card of a flow of which no measurements are known."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from acf.flows.record import LIBRARY
from acf.settings.config import ModelConfig

if TYPE_CHECKING:
    from acf.flows.certificate import Certificate
    from acf.flows.flow import Flow

LICENCE_UNKNOWN = "unknown"
"""What a card's header says where nobody has stated the licence of the weights."""
USAGE = """\
```python
import acf

flow = acf.Flow.from_pretrained("owner/name")  # or acf.load("folder"), where these files are
```
"""


def header(config: ModelConfig, licence: str, **more: Any) -> str:
    """Return the metadata at the head of a card, which the Hub reads, as YAML whose values are written as JSON.

    Args:
        config: of the model.
        licence: of the weights, as the Hub names it.
        more: further keys.
    """
    tags = ["normalizing-flow", "contractive", "lipschitz", "density-estimation"]
    tags += ["self-attention"] if config.attention.kind != "none" else []
    values: dict[str, Any] = {"license": licence, "tags": tags}
    if config.is_of_images and not config.condition.is_given:
        values["pipeline_tag"] = "unconditional-image-generation"
    lines = [f"library_name: {LIBRARY}", *(f"{key}: {json.dumps(value)}" for key, value in (values | more).items())]
    return "\n".join(["---", *lines, "---", ""])


def summary(config: ModelConfig) -> str:
    """Return what a flow is, in two sentences."""
    kind, condition = config.attention.kind, config.condition
    attention = f" with `{kind}` self-attention" if kind != "none" else ""
    data = f"vectors of {config.shape[0]} real numbers"
    if config.is_of_images:
        data = f"images of shape {' x '.join(map(str, config.shape))} with {config.levels} levels"
    if condition.is_given:
        c = f"one of {condition.classes} labels" if condition.classes else f"{condition.size} numbers"
        data = f"{data}, given {c}"
    return (
        f"A contractive normalizing flow{attention}: a density of {data}, by an invertible map to standard normal "
        "noise. Every block has a proof that its branch g is a contraction."
    )


def papers(config: ModelConfig) -> str:
    """Return the papers whose methods a flow uses, as a list in markdown."""
    uses = {
        ("Residual Flows", "1906.02735"): True,
        ("Attentive Contractive Flow", "2109.12135"): config.attention.kind != "none",
        ("The Lipschitz Constant of Self-Attention", "2006.04710"): config.attention.kind == "l2",
        ("Lipschitz Normalization for Self-Attention Layers", "2103.04886"): config.attention.kind == "dot",
        ("Invertible DenseNets with Concatenated LipSwish", "2102.02694"): (
            config.branch == "dense" or config.activation == "clipswish"
        ),
        ("Invertible Monotone Operators for Normalizing Flows", "2210.08176"): config.block == "monotone"
        or config.activation == "cpila",
        ("A Dynamical System Perspective for Lipschitz Neural Networks", "2110.12690"): config.branch == "potential",
    }
    named = [
        f"- {title}, [arXiv {number}](https://arxiv.org/abs/{number})\n"
        for (title, number), is_used in uses.items()
        if is_used
    ]
    return "".join(named)


def limits(config: ModelConfig) -> str:
    """Return the limits that every flow has, as a list in markdown."""
    exact = config.evaluation_log_det.estimator == "exact"
    are = "are exact, up to rounding" if exact else "are unbiased random estimates, and so is every likelihood"
    return f"""\
- Log-determinants {are}.
- The certificate bounds the branches of this model, so that it is invertible. It says nothing about how good it is.
- A likelihood does not tell data of the training's kind from others reliably.
"""


def plain_card(flow: "Flow", certificate: "Certificate", record: Mapping[str, Any]) -> str:
    """Return the card of a flow: what the library itself knows, and what was recorded of it.

    Args:
        flow: the model.
        certificate: its certificate.
        record: what else its config.json says.
    """
    recorded = f"```json\n{json.dumps(dict(record), indent=2)}\n```" if record else "Nothing was recorded."
    rows = "".join(f"| {block.name} | {block.upper!r} |\n" for block in certificate.blocks)
    return f"""{header(flow.config, LICENCE_UNKNOWN)}
# A contractive normalizing flow

{summary(flow.config)} It has {sum(p.numel() for p in flow.parameters()):,} parameters; its architecture is the
section `model` of `config.json`.

## How to load it

{USAGE}
## Certificate

The proven upper bound of the Lipschitz constant of each branch g, computed in float64 from these weights:

| block | bound |
|---|---:|
{rows}
## What was recorded of it

{recorded}

## Limits

- Bits/dim and reconstruction error are not available: nothing that was measured is part of this card.
{limits(flow.config)}- The licence of the weights is not stated. `license` at the head of this file is the place for it.

## Papers

{papers(flow.config)}"""
