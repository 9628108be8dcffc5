"""Beside the science: the name of a computation (recipe) and the folder that keeps its state (run store)."""

from acf.engine.recipe import CODE, file_hash, recipe
from acf.engine.store import RunStore, open_run, write_atomically

__all__ = ["CODE", "RunStore", "file_hash", "open_run", "recipe", "write_atomically"]
