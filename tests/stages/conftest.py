import functools

import pytest

from acf.runs.recipe import code_hashes

hashed_once = functools.cache(code_hashes)


@pytest.fixture
def code_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash the program's code, which does not change while tests run, once for all tests."""
    for module in ("cached", "named_recipes"):
        monkeypatch.setattr(f"acf.stages.{module}.code_hashes", hashed_once)
