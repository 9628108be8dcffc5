# What the rules share: files and settings per stage. docs/architecture.md has the table of both.
import json
import re
from functools import reduce
from pathlib import Path

from acf.settings.params import Params
from acf.runs import CODE

STUDY = Params()

RUN = "{experiment}/{variant}/seed{seed}"
EVALUATION = ["defaults.evaluation", "experiments.{experiment}.evaluation"]
SETTINGS = {
    "train": [
        "datasets.{dataset}",
        "defaults.model",
        "defaults.training",
        "variants.{variant}",
        "experiments.{experiment}.model",
        "experiments.{experiment}.training",
        "experiments.{experiment}.variants.{variant}",
    ],
    "evaluate": EVALUATION,
    "baselines": ["datasets.{dataset}", *EVALUATION],
    "sample": ["defaults.sampling", "experiments.{experiment}.sampling"],
    "report": [f"experiments.{{experiment}}.{key}" for key in ("dataset", "seeds", "variants")],
}

DATA_FILES = [f"data/{{dataset}}/{name}" for name in ("train.pth", "test.pth", "manifest.json")]
MODEL_FILES = [f"models/{RUN}/{name}" for name in ("model.safetensors", "config.json", "history.csv")]
SAMPLE_FILES = [f"samples/{RUN}/{name}" for name in ("samples.png", "reconstructions.png")]
METRICS_FILE = f"results/{RUN}/metrics.json"
BASELINES_FILE = "results/{experiment}/baselines.json"
REPORT_FILES = [f"reports/{{experiment}}/{name}" for name in ("index.html", "table.csv", "table.md")]
FIGURES = "reports/{experiment}/figures"


wildcard_constraints:
    dataset="|".join(map(re.escape, STUDY.datasets)),
    experiment="|".join(map(re.escape, STUDY.experiments)),
    variant="|".join(map(re.escape, STUDY.raw["variants"])),
    seed=r"\d+",


def code(stage):
    """The source files a stage depends on: a new or changed one runs it again."""
    places = [Path("src/acf", place) for place in CODE[stage]]
    files = [p for place in places for p in ([place] if place.suffix else place.rglob("[!.]*"))]
    return sorted(str(p) for p in files if p.is_file() and p.parent.name != "__pycache__")


def settings(stage):
    """The keys of params.yaml a stage depends on, with their values: a changed value runs it again."""

    def read(wildcards):
        names = {**wildcards, "dataset": STUDY.dataset(wildcards.experiment)}
        keys = [key.format(**names) for key in SETTINGS[stage]]
        values = {key: reduce(lambda at, name: at[name], key.split("."), STUDY.raw) for key in keys}
        return json.dumps(values, sort_keys=True)

    return read


def data_of(wildcards):
    """The files of the data set of an experiment."""
    return expand(DATA_FILES, dataset=STUDY.dataset(wildcards.experiment))


def files_of(wildcards):
    """All files that the report on an experiment is made from."""
    experiment = wildcards.experiment
    per_run = [*MODEL_FILES, METRICS_FILE, *SAMPLE_FILES]
    return [
        *data_of(wildcards),
        *expand(BASELINES_FILE, experiment=experiment),
        *expand(per_run, experiment=experiment, variant=STUDY.variants(experiment), seed=STUDY.seeds(experiment)),
    ]
