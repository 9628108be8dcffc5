"""The stage `baselines`: bits/dim of the densities that a flow has to beat."""

from pathlib import Path

from acf.data import read_manifest
from acf.data.prepared.manifest import SPLITS
from acf.reporting.result_files import require_form
from acf.reporting.schemas import Baselines
from acf.runs.store import RunStore
from acf.settings.work import covariance
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.project import Project


def baselines(experiment: str, root: Path = Path(".")) -> None:
    """Write results/<experiment>/baselines.json: test bits/dim of every baseline, with its standard error.

    A baseline that cannot be fitted is named under `not_available`, with the reason.

    Raises:
        ConfigError: no such experiment.
        DataError: the data set is not prepared, or its test split holds fewer than two images.
    """
    computation(Project(root), experiment).restore_or_compute(root)


def computation(project: Project, experiment: str) -> Computation:
    """Return the measurement of the baselines of `experiment`, which is not begun.

    Raises:
        ConfigError: no such experiment.
        DataError: the data set is not prepared.
    """
    config = project.params.evaluation(experiment)
    dataset, levels = project.params.dataset(experiment), project.params.levels(experiment)
    manifest = read_manifest(dataset, project.data)
    identity = {"experiment": experiment, "dataset": dataset}

    def compute(store: RunStore) -> Outputs:
        from acf.data import load
        from acf.evaluation.densities import measure_baselines

        train, test = (load(dataset, split, project.data, levels) for split in SPLITS)
        measured = measure_baselines(dataset, train, test, config)
        shown = [f"{name} {entry['bits_per_dim']:.4f}" for name, entry in measured["baselines"].items()]
        absent = [f"; {name} is not available: {reason}" for name, reason in measured["not_available"].items()]
        content = {**identity, **measured, "recipe": store.recipe}
        require_form(content, Baselines, output)
        return Outputs({output.name: json_bytes(content)}, f"{', '.join(shown)} bits/dim{''.join(absent)}")

    output = project.baselines(experiment)
    return Computation(
        stage="baselines",
        settings={**identity, "levels": levels, "evaluation": config.model_dump(mode="json")},
        inputs={split: manifest.sha256[split] for split in SPLITS},
        folder=output.parent,
        names=[output.name],
        work=covariance(manifest.shape),
        compute=compute,
    )
