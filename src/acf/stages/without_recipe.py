"""What `acf explain` says about stages without a recipe, which do their work whenever they are called."""

from acf.data.listing import overview
from acf.errors import ConfigError
from acf.registry import datasets, require
from acf.runs.code import CODE
from acf.stages.project import Project


def explain_without_recipe(project: Project, stage: str, experiment: str | None, dataset: str | None) -> str:
    """Return a paragraph on `prepare`, `report` or `index`: what they do, and on what they depend.

    Raises:
        ConfigError: an option that the stage needs is missing, or names something unknown.
    """
    code = ", ".join(CODE[stage])
    if stage == "prepare":
        return _prepare(project, dataset, code)
    quick = "it has no recipe and the run store keeps nothing of it: it is written anew, within seconds, at every call"
    if stage == "index":
        return f"index: {quick}. It depends on reports/*/table.csv and on the code in {code}. {_engines('index')}"
    if experiment is None:
        raise ConfigError("acf explain report needs the option --experiment")
    runs = len(project.params.runs(experiment))
    return (
        f"report {experiment}: {quick}. It depends on experiments.{experiment}.{{dataset,seeds,variants}} in "
        f"params.yaml, on the models, results and samples of its {runs} runs (a missing one is named with the command "
        f"that makes it), and on the code in {code}. {_engines(f'report@{experiment}')}"
    )


def _prepare(project: Project, dataset: str | None, code: str) -> str:
    if dataset is None:
        raise ConfigError("acf explain prepare needs the option --dataset")
    dataset = project.source(dataset)
    require(datasets(), dataset, "data set")
    (entry,) = (entry for entry in overview(project.data) if entry.name == dataset)
    would = {
        "ready": "it is prepared, so that the command would only recompute its content hashes",
        "partial": "it is prepared in part, so that the command would go on where it was interrupted",
        "missing": "it is missing, so that the command would fetch and convert it",
        "manual": "it is missing and a person has to fetch it; the command says which files, and where they go",
        "broken": f"its class cannot be used ({entry.problem})",
    }[entry.state]
    return (
        f"prepare {dataset}: {would}. It has no recipe: what counts is that data/{dataset} holds the tensors that "
        f"manifest.json describes. It depends on its source, data-hashes.json and the code in {code}, on no setting. "
        f"{_engines(f'prepare@{dataset}')}"
    )


def _engines(stage: str) -> str:
    return f"`dvc status {stage}` says whether DVC would call it."
