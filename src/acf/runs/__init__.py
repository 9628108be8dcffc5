"""Computations that outlive their process: their name (recipe), the folder that keeps their state, files, devices."""

from acf.runs.code import CODE, code_files
from acf.runs.files import write_atomically
from acf.runs.recipe import file_hash, recipe
from acf.runs.store import RunStore, open_run

__all__ = ["CODE", "RunStore", "code_files", "file_hash", "open_run", "recipe", "write_atomically"]
