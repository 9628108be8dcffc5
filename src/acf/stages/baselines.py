"""The stage `baselines`: bits/dim of the densities that a flow has to beat."""

import json
from pathlib import Path

from acf.data.prepared.manifest import SPLITS
from acf.data.prepared.tensors import load
from acf.evaluation.baselines import measure_baselines
from acf.runs.files import write_atomically
from acf.settings.params import PARAMS_FILE, Params


def evaluate_baselines(dataset: str, root: Path = Path(".")) -> None:
    """Write `results/<dataset>/baselines.json`: test bits/dim of every baseline, with its standard error.

    A baseline that cannot be fitted is named under `not_available`, with the reason.

    Raises:
        ConfigError: `dataset` has no experiment.
        DataError: the data set is not prepared, or its test split holds fewer than two images.
    """
    root = Path(root)
    params = Params(root / PARAMS_FILE)
    config = params.evaluation(dataset)
    train, test = (load(dataset, split, root / "data", params.data(dataset).levels) for split in SPLITS)
    result = {"dataset": dataset} | measure_baselines(dataset, train, test, config)
    path = root / "results" / dataset / "baselines.json"
    write_atomically(path, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    shown = ", ".join(f"{name} {entry['bits_per_dim']:.4f}" for name, entry in result["baselines"].items())
    print(f"wrote {path}: {shown} bits/dim")
    for name, reason in result["not_available"].items():
        print(f"{name} is not available: {reason}")
