"""The results that are committed bear out what README says of them."""

import json
import math
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def committed(path: str) -> str:
    """Content of a file in the last commit, whatever a rerun of the study has left in the folder."""
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("variant", ["resflow", "acf-l2", "acf-dot"])
def test_each_flow_beats_the_baselines_on_digits(variant: str) -> None:
    metrics = json.loads(committed(f"results/digits/{variant}/seed0/metrics.json"))
    baselines = json.loads(committed("results/digits/baselines.json"))
    assert metrics["test_images"] == baselines["test_images"] == 297
    for name, baseline in baselines["baselines"].items():
        gain = baseline["bits_per_dim"] - metrics["bits_per_dim"]
        assert gain > 3 * math.hypot(metrics["bits_per_dim_se"], baseline["bits_per_dim_se"]), name
    assert metrics["certificate"]["worst"] < 1
    assert metrics["reconstruction_error"] < 1e-4
    assert sum(metrics["parts"].values()) == pytest.approx(metrics["bits_per_dim"], abs=1e-9)
