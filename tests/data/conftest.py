"""A file server on the loopback interface, and running the command line as users do."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from acf.data.sources.table import Table
from acf.registry import DATASETS, TABLES
from acf.runs.recipe import code_hashes
from tests.data.sources import CASES, CLASSES, shrink

ROOT = Path(__file__).parents[2]
CODE_HASHES = cache(code_hashes)


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; the lists say what the next answers do wrong, `asked` what came in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.headers: dict[str, str] = {}
        self.statuses: list[int] = []
        self.cut_after: list[int] = []
        self.hang: list[float] = []
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if (version := self.headers.get("If-Range")) and version not in self.server.headers.values():
            wanted = None
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if self.server.statuses or content is None:
            self.send_error(self.server.statuses.pop(0) if self.server.statuses else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cut_after.pop(0) if self.server.cut_after else len(content)
        if self.server.hang:  # in the middle of the answer
            self.wfile.write(content[start : (start + end) // 2])
            self.wfile.flush()
            time.sleep(self.server.hang.pop(0))
            return
        self.wfile.write(content[start:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as instance:
        thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACF_MIRROR", raising=False)


@pytest.fixture
def acf(tmp_path: Path):
    """Run `acf` in the empty folder of a project; keywords go to the process."""
    (tmp_path / "params.yaml").touch()

    def run(*arguments: str, **keywords: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **keywords.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "acf.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **keywords,
        )

    return run


@pytest.fixture
def tried(tmp_path: Path, server: FileServer) -> Callable[[str, str, int], tuple[list[str], str]]:
    """Run a module of this folder on a case in an empty folder: its complaints, and the last line it prints.

    Source files lie in a mirror folder, or come from the server where the data set is one that is downloaded.
    """

    def run(module: str, name: str, points: int) -> tuple[list[str], str]:
        mirror, work = tmp_path / "mirror", tmp_path / "work"
        mirror.mkdir()
        work.mkdir()
        work.chmod(0o777)
        CASES[name].write(CASES[name].images, mirror)
        place = str(mirror)
        if not CLASSES[name].manual:
            server.files = {f"/{path.name}": path.read_bytes() for path in mirror.iterdir()}
            place = server.url
        result = subprocess.run(
            [sys.executable, "-m", f"tests.data.{module}", name, str(points), place],
            cwd=work,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        *faults, last = result.stdout.splitlines()
        return faults, last

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the mirror in `mirror` and data sets cut down to the cases.

    The hashes of the code, which take a second, are computed once for all tests.
    """
    shrink(monkeypatch)
    monkeypatch.setattr("acf.stages.prepare.code_hashes", CODE_HASHES)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "params.yaml").touch()
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path / "mirror"))
    return tmp_path


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], None]:
    """Register a class as the data set `own`, a table among the tables."""

    def register(made: type) -> None:
        monkeypatch.setitem(TABLES if issubclass(made, Table) else DATASETS, "own", f"{__name__}:Own")
        monkeypatch.setattr(f"{__name__}.Own", made, raising=False)

    return register
