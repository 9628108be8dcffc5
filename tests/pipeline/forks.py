"""`acf` without the seconds that loading torch takes: a process that has loaded it forks for each call.

Each call is a process of its own, with the arguments, working folder, environment and open files of its caller, and
loads the code of `acf` that PYTHONPATH names anew; only the libraries are there already. Signals do not reach it, so
tests that stop or kill `acf` start it itself.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = (
    *("torch", "numpy", "pydantic", "typer", "rich.console", "filelock", "joblib", "yaml", "safetensors.torch"),
    *("scipy.optimize", "scipy.special", "pandas", "seaborn", "matplotlib.figure", "jinja2", "PIL.PngImagePlugin"),
    *("google_crc32c", "requests", "sklearn.datasets", "sklearn.model_selection"),
)
CLIENT = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(int(server.makefile().read()))
"""


@contextmanager
def forking() -> Iterator[socket.socket]:
    """Have a process that answers the calls of `client`."""


def client(address: str) -> str:
    """Return a program to put in the place of `acf`."""
    return CLIENT.format(python=sys.executable, address=address)
