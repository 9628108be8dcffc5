"""What the Makefile asks DVC for exists."""

import re
import subprocess
from pathlib import Path

from acf.settings.params import Params

ROOT = Path(__file__).parents[1]


def test_every_target_is_of_an_experiment_and_its_variants() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    params = Params(ROOT / "params.yaml")
    known = {f"report@{name}" for name in params.experiments}
    known |= {
        f"{stage}-{run.experiment}@{run.variant}-{run.seed}" for run in params.runs() for stage in ("train", "evaluate")
    }
    lines = re.findall(r"^\tdvc repro (.*)$", text, re.MULTILINE)
    asked = subprocess.run(["bash", "-c", f"echo {' '.join(lines)}"], capture_output=True, text=True, check=True).stdout
    assert len(asked.split()) >= 10
    assert set(asked.split()) <= known
