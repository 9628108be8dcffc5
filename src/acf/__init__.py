"""Contractive normalizing flows with self-attention, each with a proof of contraction.

The public names are loaded when first used, so that `import acf` and `acf --help` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acf import lipschitz
    from acf.evaluation.likelihood import bits_per_dim
    from acf.examples import example_names, load_example
    from acf.flows.build import build
    from acf.flows.certificate import Certificate
    from acf.flows.classifying import ClassifyingFlow
    from acf.flows.data_parallel import DataParallelFlow
    from acf.flows.flow import Flow, certify, tighten
    from acf.flows.storage import load, save

_PLACES = {
    "Certificate": "acf.flows.certificate",
    "ClassifyingFlow": "acf.flows.classifying",
    "DataParallelFlow": "acf.flows.data_parallel",
    "Flow": "acf.flows.flow",
    "bits_per_dim": "acf.evaluation.likelihood",
    "build": "acf.flows.build",
    "certify": "acf.flows.flow",
    "example_names": "acf.examples",
    "load": "acf.flows.storage",
    "load_example": "acf.examples",
    "save": "acf.flows.storage",
    "tighten": "acf.flows.flow",
}

__all__ = [
    "Certificate",
    "ClassifyingFlow",
    "DataParallelFlow",
    "Flow",
    "bits_per_dim",
    "build",
    "certify",
    "example_names",
    "lipschitz",
    "load",
    "load_example",
    "save",
    "tighten",
]


def __getattr__(name: str) -> Any:
    if name == "lipschitz":
        return import_module("acf.lipschitz")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("acf")
    raise AttributeError(f"module 'acf' has no attribute {name!r}")
