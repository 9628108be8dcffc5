"""Programs without the seconds that loading their libraries takes: a process that has loaded them forks for each call.

Each call is a process of its own, with the arguments, the working folder, the environment and the open files of its
caller, and loads the code of `acf` that its PYTHONPATH names; only the libraries are there already. Signals do not
reach it, so a test that stops or kills a program starts the program itself.
"""

import gc
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

LIBRARIES = (
    *("torch", "scipy.optimize", "scipy.special", "pandas", "seaborn", "sklearn.model_selection", "sklearn.datasets"),
    *("pydantic", "typer", "rich.console", "rich.table", "joblib", "safetensors.torch", "jinja2", "PIL.PngImagePlugin"),
    *("requests", "google_crc32c", "dvc.cli", "dvc.commands.repro", "snakemake.cli", "snakemake.api"),
)
LENGTH = 8
"""Bytes that say how long a call is."""


@contextmanager
def forking() -> Iterator[str]:
    """Have a process that forks for each call until the context ends; yields the address to call."""
    with tempfile.TemporaryDirectory(prefix="acf-forks-") as folder:
        address = f"{folder}/socket"
        command = [sys.executable, __file__, address]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield address  # the server ends at the end of its standard input


def call(
    address: str,
    module: str,
    arguments: Sequence[str],
    folder: Path | str,
    environment: Mapping[str, str],
    files: Sequence[int] = (0, 1, 2),
) -> int:
    """Run `python -m module arguments`; return its exit code, as `subprocess` has it.

    Args:
        address: what `forking` has yielded.
        module: what to run.
        arguments: of the command line.
        folder: the working folder.
        environment: all variables.
        files: descriptors of standard input, output and errors.
    """
    content = json.dumps([module, list(arguments), str(folder), dict(environment)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(content).to_bytes(LENGTH, "big")], list(files))
        connection.sendall(content)
        return int(connection.makefile().read())


def serve(address: str) -> None:
    """Answer calls until standard input ends."""
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # so that no call goes through the libraries' objects at its end, which would copy them
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as ready:
        listener.bind(address)
        listener.listen(64)
        ready.register(listener, selectors.EVENT_READ)
        ready.register(0, selectors.EVENT_READ)
        print("ready", flush=True)
        while 0 not in [key.fileobj for key, _ in ready.select()]:
            connection, _ = listener.accept()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not os.fork():
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Run the program that is asked for in a process of its own, and say how it has ended."""
    length, files, _, _ = socket.recv_fds(connection, LENGTH, 3)
    with connection.makefile("rb") as stream:
        content = json.loads(stream.read(int.from_bytes(length, "big")))
    if program := os.fork():
        for number in files:
            os.close(number)
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        with suppress(OSError):  # the caller has gone
            connection.sendall(str(code).encode())
        os._exit(0)
    connection.close()
    for target, number in enumerate(files):
        os.dup2(number, target)
        os.close(number)
    _run(*content)


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


CLIENT = """#!{python} -ISE
import json, os, socket, sys
calls = os.open("calls.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(calls, (" ".join(sys.argv[1:]) + "\\n").encode())
content = json.dumps(["acf", sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [len(content).to_bytes({length}, "big")], [0, 1, 2])
    connection.sendall(content)
    code = int(connection.makefile().read())
sys.exit(code if code >= 0 else 128 - code)
"""


def client(address: str) -> str:
    """Return a program in place of `acf`, which starts quickly and notes each call in calls.txt."""
    return CLIENT.format(python=sys.executable, address=address, length=LENGTH)


if __name__ == "__main__":
    serve(sys.argv[1])
