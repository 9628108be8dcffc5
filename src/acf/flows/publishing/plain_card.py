"""Model cards: the parts that all of them have, and the card of a flow of which no measurements are known."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acf.flows.record import LIBRARY

if TYPE_CHECKING:
    from acf.flows.certificate import Certificate
    from acf.flows.flow import Flow

LICENCE_UNKNOWN = "unknown"
"""What a card's header says where nobody has stated the licence of the weights."""
TASK = "unconditional-image-generation"
TAGS = ("normalizing-flow", "contractive", "lipschitz", "self-attention", "density-estimation")
PAPERS = """\
- Attentive Contractive Flow, [arXiv 2109.12135](https://arxiv.org/abs/2109.12135)
- Residual Flows, [arXiv 1906.02735](https://arxiv.org/abs/1906.02735)
- Invertible DenseNets with Concatenated LipSwish, [arXiv 2102.02694](https://arxiv.org/abs/2102.02694)
"""
USAGE = """\
```python
import acf

flow = acf.Flow.from_pretrained("owner/name")  # or acf.load("folder"), where these files are
```
"""
LIMITS = """\
- Log-determinants are unbiased random estimates, and so is every likelihood; they are drawn from torch's generator.
- The certificate bounds the branches of this model, so that it is invertible. It says nothing about how good it is.
- A likelihood does not tell images of the training's kind from others reliably.
"""


def header(licence: str, **more: Any) -> str:
    """Return the metadata at the head of a card, which the Hub reads, as YAML whose values are written as JSON.

    Args:
        licence: of the weights, as the Hub names it.
        more: further keys.
    """
    tags: Sequence[str] = TAGS
    values: Mapping[str, Any] = {"license": licence, "pipeline_tag": TASK, "tags": list(tags), **more}
    lines = [f"library_name: {LIBRARY}", *(f"{key}: {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(["---", *lines, "---", ""])


def plain_card(flow: "Flow", certificate: "Certificate", record: Mapping[str, Any]) -> str:
    """Return the card of a flow: what the library itself knows, and what was recorded of it.

    Args:
        flow: the model.
        certificate: its certificate.
        record: what else its config.json says.
    """
    size = " x ".join(map(str, flow.shape))
    recorded = f"```json\n{json.dumps(dict(record), indent=2)}\n```" if record else "Nothing was recorded."
    parameters = f"{sum(p.numel() for p in flow.parameters()):,}"
    rows = "".join(f"| {block.name} | {block.upper!r} |\n" for block in certificate.blocks)
    return f"""{header(LICENCE_UNKNOWN)}
# A contractive normalizing flow

A density of data of shape {size}, by an invertible map to standard normal noise whose residual blocks x + g(x) have a
proof that g is a contraction. It has {parameters} parameters; its architecture is the section `model` of `config.json`.

## How to load it

{USAGE}
## Certificate

The proven upper bound of each branch's Lipschitz constant, computed in float64 from these weights:

| block | bound |
|---|---:|
{rows}
## What was recorded of it

{recorded}

## Limits

- Bits/dim and reconstruction error are not available: nothing that was measured is part of this card.
{LIMITS}- The licence of the weights is not stated. `license` at the head of this file is the place for it.

## Papers

{PAPERS}"""
