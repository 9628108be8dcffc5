# What the rules share: files and settings per stage. docs/architecture.md has the table of both.
import json
import re
from functools import reduce
from pathlib import Path

from acf.settings.params import Params
from acf.runs import CODE

STUDY = Params()

MODEL = "models/{dataset}/{variant}/seed{seed}"
DATA = ["defaults.data", "experiments.{dataset}.data"]
EVALUATION = ["defaults.evaluation", "experiments.{dataset}.evaluation"]
SETTINGS = {
    "train": [
        *DATA,
        "defaults.model",
        "defaults.training",
        "variants.{variant}",
        "experiments.{dataset}.model",
        "experiments.{dataset}.training",
        "experiments.{dataset}.variants.{variant}",
    ],
    "evaluate": EVALUATION,
    "baselines": DATA + EVALUATION,
    "sample": ["defaults.sampling", "experiments.{dataset}.sampling"],
    "report": ["experiments.{dataset}.seeds", "experiments.{dataset}.variants"],
}

DATA_FILES = [f"data/{{dataset}}/{name}" for name in ("train.pth", "test.pth", "manifest.json")]
MODEL_FILES = [f"{MODEL}/{name}" for name in ("model.safetensors", "config.json", "history.csv")]
SAMPLE_FILES = [
    f"samples/{{dataset}}/{{variant}}/seed{{seed}}/{name}" for name in ("samples.png", "reconstructions.png")
]
METRICS_FILE = "results/{dataset}/{variant}/seed{seed}/metrics.json"
BASELINES_FILE = "results/{dataset}/baselines.json"
REPORT_FILES = [f"reports/{{dataset}}/{name}" for name in ("index.html", "table.csv", "table.md")]
FIGURES = "reports/{dataset}/figures"


wildcard_constraints:
    dataset="|".join(map(re.escape, STUDY.datasets)),
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
        keys = [key.format(**wildcards) for key in SETTINGS[stage]]
        values = {key: reduce(lambda at, name: at[name], key.split("."), STUDY.raw) for key in keys}
        return json.dumps(values, sort_keys=True)

    return read


def files_of(dataset):
    """All files the report on a data set is made from."""
    per_run = [*MODEL_FILES, METRICS_FILE, *SAMPLE_FILES]
    return [
        *expand([*DATA_FILES, BASELINES_FILE], dataset=dataset),
        *expand(per_run, dataset=dataset, variant=STUDY.variants(dataset), seed=STUDY.seeds(dataset)),
    ]
