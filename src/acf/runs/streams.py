"""Standard output and standard error of a command, which never are the reason that it fails half-way."""

import io
import os
import sys
from typing import TextIO


def open_streams() -> TextIO:
    """Have characters that the terminal's encoding lacks escaped, and replace closed streams; return standard output.

    A closed stream's number would otherwise be given to the next file that is opened, which stray output would damage.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return sys.stdout


def flush_output(output: TextIO, code: int) -> int:
    """Write what is left of standard output, and return the exit code of a command that ended with `code`.

    It is 1 at least if the output cannot be written, with a message unless its reader has gone
    (`acf data list | head -1`).
    """
    try:
        output.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: cannot write standard output: {error.strerror}; send it to another place", file=sys.stderr)
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return code or 1
    return code
