"""Training beside other programs, and threads that pay: python benchmarks/shared_machine.py [--seconds S] [--rounds R].

Writes results/shared_machine.json beside this file; takes under four minutes. Only on a machine that does nothing else
do the numbers mean something.

Trainings are those of `acf train` on digits, each a process of its own in a temporary project, stopped by SIGTERM after
some seconds; speed is the steps done from the first line of the training to its last. They take turns, and so do one
thread and two, so that a change of the machine's speed meets all alike. A busy process is a loop in Python.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from training_step import ROOT, facts, step, table

import acf
from acf.runs.threads import VALUES_PER_THREAD, WAITING, threads_that_pay
from acf.settings.config import ModelParams
from acf.settings.work import largest_map

COMMAND = "python benchmarks/shared_machine.py"
RESULT = ROOT / "benchmarks/results/shared_machine.json"
SEED, TURNS, SECONDS, ROUNDS = 0, 7, 9.0, 2
SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""How GNU's OpenMP waits where nobody says anything."""
SIZES: list[tuple[dict[str, Any], int]] = [  # one block each, and the batch
    ({"shape": [1, 8, 8], "squeeze_first": True, "idim": 74}, 64),
    ({"shape": [1, 8, 8], "squeeze_first": True, "idim": 74}, 256),
    ({"shape": [1, 8, 8], "idim": 128}, 64),
    ({"shape": [1, 14, 14], "idim": 128}, 32),
    ({"shape": [1, 14, 14], "idim": 128}, 64),
    ({"shape": [1, 28, 28], "idim": 128}, 32),
]
TWO_THREADS = "import acf.runs.threads as threads; threads.VALUES_PER_THREAD = 1\nfrom acf.cli import main\nmain()"
"""`acf` with all threads that it is given, however small the maps."""
BUSY = "while True: pass"
# way to train: with the threads that `acf` chooses, or with two that spin; number of busy processes; of trainings
SITUATIONS: dict[str, tuple[str, int, int]] = {
    "alone": ("chosen", 0, 1),
    "two spinning threads, alone": ("spinning", 0, 1),
    "beside two busy processes": ("chosen", 2, 1),
    "two spinning threads, beside two busy processes": ("spinning", 2, 1),
    "two side by side": ("chosen", 0, 2),
}


def measure_threads() -> dict[str, dict[str, list[float]]]:
    """Seconds of training steps by size and number of threads; called in a process per way of waiting."""
    torch.manual_seed(SEED)
    seconds: dict[str, dict[str, list[float]]] = {}
    for settings, batch in SIZES:
        flow = acf.build({**settings, "levels": 17, "blocks": [1], "fc_blocks": 0}).train()
        optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4)
        x = torch.rand(batch, *flow.shape)
        own = seconds[_name(settings, batch)] = {"1": [], "2": []}
        for turn in range(TURNS + 1):
            for threads, taken in own.items():
                torch.set_num_threads(int(threads))
                torch.manual_seed(turn)
                value, _ = step(flow, optimiser, x, flow.renormalise)
                if turn:
                    taken.append(value)
    return seconds


def measure_in_process(waiting: dict[str, str]) -> Any:
    """The result of `measure_threads` in a process of its own, whose threads wait as asked."""
    command = [sys.executable, __file__, "--steps"]
    result = subprocess.run(command, env=_environment(waiting), check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def measure_trainings(seconds: float, rounds: int) -> dict[str, list[float]]:
    """Images per second of all trainings of a situation together, in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in SITUATIONS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        batch = _make_project(root)
        for _ in range(rounds):
            for name, (way, busy, number) in SITUATIONS.items():
                shutil.rmtree(root / ".acf", ignore_errors=True)
                with _busy(busy):
                    steps = _trainings(root, way, number, seconds)
                speeds[name].append(batch * sum(steps))
                print(f"{name}: {speeds[name][-1]:.1f} images/s", flush=True)
    return speeds


def _make_project(root: Path) -> int:
    """Make a project that trains digits for longer than anybody waits; return the batch size."""
    study = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    study["experiments"] = {"digits": study["experiments"]["digits"]}
    study["experiments"]["digits"]["training"] |= {"steps": 100_000, "validate_every": 100_000}
    (root / "params.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    if (ROOT / "data/digits/manifest.json").exists():
        shutil.copytree(ROOT / "data/digits", root / "data/digits")
    else:
        command = [sys.executable, "-m", "acf.cli", "prepare", "--dataset", "digits"]
        subprocess.run(command, cwd=root, env=_environment({}), check=True)
    return int(study["defaults"]["training"]["batch_size"])


def _trainings(root: Path, way: str, number: int, seconds: float) -> list[float]:
    """Steps per second of each of `number` trainings that run at the same time."""
    options = ["train", "--experiment", "digits", "--variant", "resflow", "--device", "cpu", "--seed"]
    program = ["-m", "acf.cli"] if way == "chosen" else ["-c", TWO_THREADS]
    environment = _environment({} if way == "chosen" else SPINNING)
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *options, str(seed)],
            cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for seed in range(number)
    ]  # fmt: skip
    starts = [_wait_for(process, r"parameters on") for process in processes]
    time.sleep(seconds)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    ends = [_wait_for(process, r"after step (\d+)") for process in processes]
    for process in processes:
        process.communicate()
    return [int(step) / (end - start) for (start, _), (end, step) in zip(starts, ends, strict=True)]


def _wait_for(process: "subprocess.Popen[str]", pattern: str) -> tuple[float, str]:
    """Time of the first line that matches, and its first group."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(pattern, line):
            return time.perf_counter(), found[found.re.groups]
    raise RuntimeError(f"a training ended too early:\n{''.join(lines)}")


@contextmanager
def _busy(number: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _environment(changes: dict[str, str]) -> dict[str, str]:
    """This process's environment with `changes`, without limits on threads, and with this copy of the package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_", "KMP_"))}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"} | changes


def _name(settings: dict[str, Any], batch: int) -> str:
    _, height, width = settings["shape"]
    divisor = 2 if settings.get("squeeze_first") else 1
    return f"{height // divisor}x{width // divisor}, idim {settings['idim']}, batch {batch}"


NOTES = """## Threads, and other programs beside

Seconds of a training step of one block (median of {turns} turns; {cores} cores), by the number of threads, which take
turns, and by how threads wait for each other: *passive*, as `acf` has them, and *spinning*, as they do by themselves.
`acf` takes one more thread for every {values_per_thread:,} values of the largest map.

"""
TRAININGS = """
Images per second of `acf train` on digits (`resflow`), {seconds:g} seconds each, mean of {rounds} rounds; a busy
process never waits. *Two spinning threads* are what the same maps get where nobody chooses.

"""


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    rows = []
    for settings, batch in SIZES:
        name = _name(settings, batch)
        passive, spinning = (
            {threads: statistics.median(s) for threads, s in result["steps"][way][name].items()}
            for way in ("passive", "spinning")
        )
        values = batch * largest_map(ModelParams(**_without_shape(settings)), settings["shape"])
        rows.append(
            [
                name, f"{values:,}", f"{passive['1']:.4f}", f"{passive['2']:.4f}", f"{spinning['2']:.4f}",
                f"{passive['1'] / passive['2']:.2f}", f"{spinning['1'] / spinning['2']:.2f}",
                str(min(2, threads_that_pay(values))),
            ]
        )  # fmt: skip
    head = [
        "maps",
        "values",
        "one thread",
        "two, passive",
        "two, spinning",
        "gain, passive",
        "gain, spinning",
        "chosen",
    ]
    speeds = {name: statistics.mean(values) for name, values in result["images_per_second"].items()}
    shares = [[name, f"{speed:.1f}", f"{speed / speeds['alone']:.2f}"] for name, speed in speeds.items()]
    return [
        NOTES.format(**result),
        *table(head, rows),
        TRAININGS.format(**result),
        *table(["situation", "images/s", "share of alone"], shares),
    ]


def _without_shape(settings: dict[str, Any]) -> dict[str, Any]:
    return {"blocks": [1], **{key: value for key, value in settings.items() if key != "shape"}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", action="store_true", help="only print the seconds of steps")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each training")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    if options.steps:
        print(json.dumps(measure_threads()))
        return
    result: dict[str, Any] = {"command": COMMAND, **facts(), "turns": TURNS, "cores": os.cpu_count()}
    result |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "values_per_thread": VALUES_PER_THREAD}
    result |= {"seconds": options.seconds, "rounds": options.rounds}
    result["steps"] = {"passive": measure_in_process(WAITING), "spinning": measure_in_process(SPINNING)}
    result["images_per_second"] = measure_trainings(options.seconds, options.rounds)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
