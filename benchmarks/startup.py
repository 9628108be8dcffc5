"""Seconds until the programs answer: import, help, and both engines with nothing to do.

python benchmarks/startup.py, after `dvc repro report@demo`; writes results/startup.json beside this file.
"""

import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training_step import ROOT, facts, table

RESULT = ROOT / "benchmarks/results/startup.json"
TURNS = 7
BIN = Path(sys.executable).parent
COMMANDS: dict[str, list[str]] = {
    "python -c 'import acf'": ["python", "-c", "import acf"],
    "acf --help": ["acf", "--help"],
    "dvc repro report@demo": ["dvc", "repro", "report@demo"],
    "snakemake -n reports/demo/index.html": ["snakemake", "-n", "reports/demo/index.html"],
}
WANTED = {"python": 2.0, "acf": 0.5, "dvc": 4.0, "snakemake": 5.0}
"""Seconds that a person should not have to notice, by program."""


NOTES = """## Start

Seconds of a process of its own, {turns} turns after a warm one; both engines have nothing to do.

"""


def measure(command: list[str]) -> list[float]:
    """Seconds of each turn after a warm one."""
    seconds = []
    for turn in range(TURNS + 1):
        start = time.perf_counter()
        subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, check=True, capture_output=True)
        if turn > 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    rows = []
    for name, seconds in result["seconds"].items():
        cells = [f"{value:.2f}" for value in (statistics.median(seconds), max(seconds), WANTED[name.split()[0]])]
        rows.append([f"`{name}`", *cells])
    text = (
        f"## Start\n\nSeconds of a process of its own, {result['turns']} turns after a warm one; nothing to do for both"
    )
    return [f"{text} engines.\n", *table(["command", "median", "longest", "at most wanted"], rows)]


def main() -> None:
    result: dict[str, Any] = {"command": "python benchmarks/startup.py", **facts(), "turns": TURNS}
    result["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    result["seconds"] = {name: measure(command) for name, command in COMMANDS.items()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
