# What the rules share: files, ages and threads.
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from acf.data.prepared.seen import averaged_shape
from acf.data.sources.registered import dataset_source
from acf.runs.threads import threads_that_pay
from acf.settings.config import AnalysesConfig
from acf.settings.params import Params
from acf.settings.work import covariance, work

STUDY = Params()

# Of each analysis, its section of the settings.
ANALYSES = {name: field.annotation for name, field in AnalysesConfig.model_fields.items()}

# A job asks for the threads that pay, but for no more than this: several jobs side by side use cores better than one.
MOST_THREADS = 4

RUN = "{experiment}/{variant}/seed{seed}"
DATA_FILES = [f"data/{{dataset}}/{name}" for name in ("train.pth", "test.pth", "manifest.json")]
LABELS_FILE = "data/{dataset}/labels.json"
MODEL_FILES = [f"models/{RUN}/{name}" for name in ("model.safetensors", "config.json", "history.csv")]
PICTURES = ("samples.png", "reconstructions.png", "temperatures.png", "nearest.png")
SAMPLE_PICTURES = [f"samples/{RUN}/{name}" for name in PICTURES]
SAMPLE_NUMBERS = f"samples/{RUN}/samples.json"
PAIRS = f"samples/{RUN}/pairs.png"
ROW_FILES = [f"samples/{RUN}/rows.csv", f"samples/{RUN}/rows.json"]
METRICS_FILES = [f"results/{RUN}/metrics.json", f"analyses/{RUN}/images.csv"]
BASELINE_FILES = ["results/{experiment}/baselines.json", "analyses/{experiment}/baselines.csv"]
REPORT_FILES = [
    f"reports/{{experiment}}/{name}" for name in ("index.html", "table.csv", "table.md", "table.tex", "findings.json")
]
TABLE = "reports/{experiment}/table.csv"
FIGURES = "reports/{experiment}/figures"
FOR_DVC = ["summaries/{experiment}.json", "curves/{experiment}.csv"]


wildcard_constraints:
    dataset="|".join(map(re.escape, STUDY.datasets)),
    experiment="|".join(map(re.escape, STUDY.experiments)),
    variant="|".join(map(re.escape, STUDY.raw["variants"])),
    seed=r"\d+",


STAMPS = []


def stamped(stage, wildcards):
    """Return the stamp of a job, and whether its outputs are what the stage would make now (acf.stages.stamps)."""
    from acf.stages.current import Task
    from acf.stages.stamps import Stamps, stamp_path

    task = Task(stage, tuple(wildcards))
    path = stamp_path(task)
    if not workflow.is_main_process and path.exists():
        return str(path), True  # a job on another node finds the file that decided
    if not STAMPS:
        STAMPS.append(Stamps())
    return str(path), STAMPS[0].write(task)


def stamp(stage):
    """The input that decides whether a job runs: older than its outputs if these are current, and new if they are not.

    Snakemake compares ages, which say nothing of outputs that DVC has made or fetched, and change with a clone.
    """
    return lambda wildcards: stamped(stage, wildcards)[0]


def read(stage, files):
    """The other inputs of a job, whose ages do not count if its outputs are current.

    If they are not, they are ordinary inputs: Snakemake leaves out a job with `ancient` inputs only, whatever its stamp
    says, when the job that makes them runs.
    """

    def inputs(wildcards):
        found = files(wildcards)
        return ancient(found) if stamped(stage, wildcards)[1] else found

    return inputs


def threads_of(stage):
    """The number of threads of a job; `acf` computes with as many, by the same rule.

    Small models take one, so that there are as many jobs at once as cores. Snakemake hands the number on as
    OMP_NUM_THREADS, and to SLURM as --cpus-per-task.
    """

    def number(wildcards):
        experiment = wildcards.experiment
        stored = dataset_source(STUDY.prepared(experiment)).shape or (1,)  # of a table, which has few columns
        shape = averaged_shape(stored, STUDY.seen(experiment).average)
        if stage == "baselines":
            values = covariance(shape)
        else:
            values = work(STUDY.resolve(experiment, wildcards.variant), stage, shape)
        return min(MOST_THREADS, threads_that_pay(values))

    return number


def data_of(wildcards):
    """The files of the data set of an experiment."""
    return expand(DATA_FILES, dataset=STUDY.prepared(wildcards.experiment))


def data_and_labels(wildcards):
    """The files of the data set of an experiment, with the labels if a variant of it is trained with them."""
    dataset = STUDY.prepared(wildcards.experiment)
    labels = expand(LABELS_FILE, dataset=dataset) if STUDY.reads_labels(wildcards.experiment) else []
    return [*data_of(wildcards), *labels]


def data_and_model(wildcards):
    """The files of a model and of its data set."""
    return [*data_of(wildcards), *expand(MODEL_FILES, **wildcards)]


def data_labels_and_model(wildcards):
    """The same with the labels, as `data_and_labels`."""
    return [*data_and_labels(wildcards), *expand(MODEL_FILES, **wildcards)]


def analysis_files(analysis, section):
    """The files that an analysis writes."""
    endings = ["json", "png"] if section.has_picture else ["json"]
    return [f"analyses/{RUN}/{analysis}.{ending}" for ending in endings]


def data_and_model_for(analysis):
    """The files that an analysis reads: of the model, of its data set, and of others that its settings name."""

    def files(wildcards):
        section = getattr(STUDY.analyses(wildcards.experiment), analysis)
        labels = expand(LABELS_FILE, dataset=STUDY.prepared(wildcards.experiment)) if section.reads_labels else []
        return [*data_and_model(wildcards), *labels, *expand(DATA_FILES, dataset=section.other_datasets)]

    return files


def files_of(wildcards):
    """All files that the report on an experiment is made from."""
    experiment = wildcards.experiment
    images = STUDY.is_of_images(experiment)
    sampled = [*SAMPLE_PICTURES, SAMPLE_NUMBERS] if images else [*ROW_FILES, PAIRS]
    per_run = [*MODEL_FILES, *METRICS_FILES, *sampled]
    analysed = [
        file
        for analysis, run in STUDY.analysed(experiment)
        for file in expand(analysis_files(analysis, ANALYSES[analysis]), **run._asdict())
    ]
    return [
        *data_of(wildcards),
        *expand(LABELS_FILE, dataset=STUDY.prepared(experiment)),
        *expand(BASELINE_FILES, experiment=experiment),
        *expand(per_run, experiment=experiment, variant=STUDY.variants(experiment), seed=STUDY.seeds(experiment)),
        *analysed,
    ]


def reports(wildcards):
    """The files of all reports."""
    return expand([*REPORT_FILES, FIGURES], experiment=STUDY.experiments)


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
