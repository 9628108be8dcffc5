"""A full disk and a read-only folder, for every source: one message, nothing corrupt, and the next run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FileServer
from sources import CASES, CLASSES

HERE = Path(__file__).parent
PARTS = 5


@pytest.mark.parametrize("name", sorted(CASES))
def test_refused_writes(name: str, tmp_path: Path, server: FileServer) -> None:
    mirror, work = tmp_path / "mirror", tmp_path / "work"
    mirror.mkdir()
    work.mkdir()
    work.chmod(0o777)
    CASES[name].write(CASES[name].images, mirror)
    place = str(mirror)
    if not CLASSES[name].manual:  # downloaded
        server.files = {f"/{path.name}": path.read_bytes() for path in mirror.iterdir()}
        place = server.url
    result = subprocess.run(
        [sys.executable, HERE / "refused.py", name, place, str(PARTS)],
        cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    *faults, last = result.stdout.splitlines()
    assert faults == []
    assert int(last.removeprefix("refused ")) == PARTS
