# What the rules share: files, ages and threads.
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from acf.data.sources.registered import dataset_source
from acf.runs.threads import threads_that_pay
from acf.settings.params import Params
from acf.settings.work import covariance, work

STUDY = Params()

# A job asks for the threads that pay, but for no more than this: several jobs side by side use cores better than one.
MOST_THREADS = 4

RUN = "{experiment}/{variant}/seed{seed}"
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


STAMPS = []


def stamp(stage):
    """The file that decides whether a job runs: older than its outputs if these are what the stage would make now.

    Snakemake compares ages, which say nothing of outputs that DVC has made or fetched, and change with a clone. So all
    other inputs are `ancient`, and this file is as old as it has to be: see acf.stages.stamps.
    """

    def write(wildcards):
        from acf.stages.current import Task
        from acf.stages.stamps import Stamps, stamp_path

        task = Task(stage, tuple(wildcards))
        path = stamp_path(task)
        if workflow.is_main_process or not path.exists():  # a job on another node finds the file that decided
            if not STAMPS:
                STAMPS.append(Stamps())
            STAMPS[0].write(task)
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
    return ancient(expand(DATA_FILES, dataset=STUDY.dataset(wildcards.experiment)))


def files_of(wildcards):
    """All files that the report on an experiment is made from."""
    experiment = wildcards.experiment
    per_run = [*MODEL_FILES, METRICS_FILE, *SAMPLE_FILES]
    return [
        *data_of(wildcards),
        *ancient(expand(BASELINES_FILE, experiment=experiment)),
        *ancient(
            expand(per_run, experiment=experiment, variant=STUDY.variants(experiment), seed=STUDY.seeds(experiment))
        ),
    ]


ENGINE = ExitStack()


onstart:
    from acf.stages.engines import dvc_waits
    from acf.stages.stamps import keep_in_place

    ENGINE.enter_context(dvc_waits("snakemake", *sys.argv[1:]))
    for job in workflow.dag.needrun_jobs():
        keep_in_place([Path(path) for path in job.output])


onsuccess:
    ENGINE.close()


onerror:
    ENGINE.close()
