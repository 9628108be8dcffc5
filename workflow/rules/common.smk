# What the rules share: files and settings per stage. docs/architecture.md has the table of both.
import json
import os
import re
from functools import reduce
from pathlib import Path

from acf.data.sources.registered import dataset_source
from acf.runs import code_files, write_atomically
from acf.runs.threads import threads_that_pay
from acf.settings.params import PARAMS_FILE, Params
from acf.settings.work import covariance, work

STUDY = Params()

# A job asks for the threads that pay, but for no more than this: several jobs side by side use cores better than one.
MOST_THREADS = 4

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
    """The source files a stage depends on, of the package that runs: a changed one runs it again."""
    paths = [source.path for source in code_files(stage).values()]
    here = Path.cwd()
    return [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths]


def settings(stage):
    """The file with the keys of params.yaml that a stage depends on and their values: a changed value runs it again.

    Snakemake compares `params` only for outputs that it has made itself; of those that DVC has made it knows the age. So
    the values are a file: as old as params.yaml when it is first written, and new when they change.
    """

    def write(wildcards):
        names = {**wildcards, "dataset": STUDY.dataset(wildcards.experiment)}
        keys = [key.format(**names) for key in SETTINGS[stage]]
        values = {key: reduce(lambda at, name: at[name], key.split("."), STUDY.raw) for key in keys}
        text = json.dumps(values, indent=1, sort_keys=True) + "\n"
        path = Path(".acf", "settings", stage, *map(str, wildcards), "settings.json")
        known = path.is_file()
        if not known or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())
        if not known:
            age = os.stat(PARAMS_FILE).st_mtime_ns
            os.utime(path, ns=(age, age))
        return str(path)

    return write


def threads_of(stage):
    """The number of threads of a job; `acf` computes with as many, by the same rule.

    Small models take one, so that there are as many jobs at once as cores. Snakemake hands the number on as
    OMP_NUM_THREADS, and to SLURM as --cpus-per-task.
    """

    def number(wildcards):
        experiment = wildcards.experiment
        shape = dataset_source(STUDY.dataset(experiment)).shape
        if stage == "baselines":
            values = covariance(shape)
        else:
            values = work(STUDY.resolve(experiment, wildcards.variant), stage, shape)
        return min(MOST_THREADS, threads_that_pay(values))

    return number


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
