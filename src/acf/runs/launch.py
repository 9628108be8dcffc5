"""Starting the processes of one training on this machine, and ending them together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from acf.errors import LostRankError
from acf.runs.signals import StopSignals
from acf.runs.threads import threads_given

LIFELINE = "ACF_LAUNCHER"
"""Variable with the number of a file that ends when the process that launched this one does."""
LOST = 75
"""Exit code of a process that has ended because another one did."""
GRACE = 20.0
"""Seconds that processes have to end by themselves once one of them has failed."""
PAUSE = 0.1


def launch(arguments: Sequence[str], devices: Sequence[str], folder: Path) -> int:
    """Run `python -m acf ARGUMENTS --device D` in `folder` once per device D, as ranks of one computation.

    The threads that this process may use are divided among them. Signals to stop are passed on. If a process fails, the
    others are ended. If this process is killed, they save their checkpoint and stop.

    Returns:
        0 if all have succeeded, otherwise the exit code of the first that failed by itself.

    Raises:
        LostRankError: a process was killed by a signal; says which.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        theirs, ours = os.pipe()
        stack.callback(os.close, ours)
        processes = [stack.enter_context(p) for p in _started(arguments, devices, folder, theirs)]
        stack.callback(_end, processes)
        os.close(theirs)
        code = _wait(processes, signals)
    return code


def _started(
    arguments: Sequence[str], devices: Sequence[str], folder: Path, lifeline: int
) -> list[subprocess.Popen[bytes]]:
    shared = {
        "WORLD_SIZE": str(len(devices)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(max(1, threads_given() // len(devices))),
        LIFELINE: str(lifeline),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "acf", *arguments, "--device", device],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            pass_fds=[lifeline],
            # A terminal sends Ctrl-C to its whole group; here it comes through this process alone, once.
            start_new_session=True,
        )
        for rank, device in enumerate(devices)
    ]


def _wait(processes: Sequence[subprocess.Popen[bytes]], signals: StopSignals) -> int:
    passed_on: signal.Signals | None = None
    failed: list[int] = []
    deadline = float("inf")
    while running := [p for p in processes if p.poll() is None]:
        if (received := signals.received) is not None and received != passed_on:
            _send(running, received)
            passed_on = received
        for rank, process in enumerate(processes):
            if process.returncode and rank not in failed:
                failed.append(rank)
                deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            _send(running, signal.SIGKILL)
        time.sleep(PAUSE)
    failed += [rank for rank, process in enumerate(processes) if process.returncode and rank not in failed]
    codes = {rank: processes[rank].returncode for rank in failed}
    by_itself = {rank: code for rank, code in codes.items() if code not in (LOST, -signal.SIGKILL)}
    for rank, code in {**by_itself, **codes}.items():
        if code > 0 and code != LOST:
            return code  # it has said why
        if code < 0:
            name = signal.Signals(-code).name
            raise LostRankError(
                f"process {rank + 1} of {len(processes)} was ended by {name}, so the others were ended too; run the "
                "same command again, with any number of processes, to go on from the last checkpoint"
            )
    return LOST if codes else 0


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    _send([p for p in processes if p.poll() is None], signal.SIGKILL)


def _send(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_launched() -> bool:
    """Whether `launch` has started this process."""
    return LIFELINE in os.environ


def stop_with_launcher() -> None:
    """Have this process receive SIGTERM when the one that launched it, if any, ends without waiting for it."""
    if not is_launched():
        return
    lifeline = int(os.environ[LIFELINE])

    def watch() -> None:
        with suppress(OSError):
            os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="launcher").start()
