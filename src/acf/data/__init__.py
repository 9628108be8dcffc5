"""Data sets: fetched, checked and stored as `data/<dataset>/{train,test}.pth` with a manifest.

The public names are loaded when first used: neither torch nor scikit-learn is imported before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acf.data.listing import overview
    from acf.data.prepared.manifest import Manifest, read_manifest
    from acf.data.prepared.store import load, verify
    from acf.data.stage import prepare

_PLACES = {
    "Manifest": "acf.data.prepared.manifest",
    "overview": "acf.data.listing",
    "load": "acf.data.prepared.store",
    "prepare": "acf.data.stage",
    "read_manifest": "acf.data.prepared.manifest",
    "verify": "acf.data.prepared.store",
}

__all__ = ["Manifest", "load", "overview", "prepare", "read_manifest", "verify"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'acf.data' has no attribute {name!r}")
