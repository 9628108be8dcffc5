"""Damage to any stored file is refused in one sentence, or does no harm; never a traceback, never other weights."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acf.errors import AcfError
from acf.stages.cached import Computation
from tests.fuzz.cases import few_or_many, same, try_all, value_or_refusal
from tests.fuzz.finished import STORED, StoredFile, finish, little_memory, no_code
from tests.undrawn import leave_out_figures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return finish(tmp_path_factory.mktemp("finished") / "study", digits)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out what takes long and reads no file: hashes of the code, computations, figures."""
    for stage in ("cached", "report", "index"):
        monkeypatch.setattr(f"acf.stages.{stage}.code_hashes", no_code)
    monkeypatch.setattr(Computation, "restore_or_compute", lambda self, root: None)
    leave_out_figures(monkeypatch)
    with little_memory():
        yield


def outcome(read: Callable[[Path], Any], root: Path) -> Any:
    """Return what reading gives: a value, or an error in words, such as for a size that memory is too small for."""
    try:
        return value_or_refusal(lambda: read(root))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        return AcfError("out of memory")  # as the command line has it


def assert_no_harm(stored: StoredFile, root: Path, cases: int) -> None:
    path = root / stored.path
    sound = path.read_bytes()
    expected = stored.read(root)

    def holds(content: bytes) -> None:
        path.unlink()
        path.write_bytes(content)
        found = outcome(stored.read, root)
        if stored.protected and not isinstance(found, AcfError):
            assert same(found, expected)

    try_all(cases, stored.damage(sound), holds)


@few_or_many
@pytest.mark.parametrize("kind", STORED)
def test_damage_does_no_harm(cases: int, kind: str, finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(finished, root)
    assert_no_harm(STORED[kind], root, cases)
