"""Data sets: their sources, the formats they come in, and the tensors that models read.

The public names are loaded when first used: neither torch nor scikit-learn is imported before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acf.data.listing import overview
    from acf.data.prepared.manifest import Manifest, read_manifest
    from acf.data.prepared.tensors import load
    from acf.data.verified import verify

_PLACES = {
    "Manifest": "acf.data.prepared.manifest",
    "overview": "acf.data.listing",
    "load": "acf.data.prepared.tensors",
    "read_manifest": "acf.data.prepared.manifest",
    "verify": "acf.data.verified",
}

__all__ = ["Manifest", "load", "overview", "read_manifest", "verify"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'acf.data' has no attribute {name!r}")
