"""The stage `baselines`: bits/dim of the densities that a flow has to beat."""

import hashlib
from pathlib import Path

from acf.data import read_manifest
from acf.data.prepared.manifest import SPLITS
from acf.data.prepared.seen import averaged_shape
from acf.reporting.result_files import require_form
from acf.reporting.schemas import Baselines
from acf.runs.store import RunStore
from acf.settings.work import covariance
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.project import BASELINE_IMAGES, Project


def baselines(experiment: str, root: Path = Path(".")) -> None:
    """Measure test bits/dim of every baseline and write two files.

    results/<experiment>/baselines.json has means with their standard errors, analyses/<experiment>/baselines.csv every
    test image.

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
    dataset, prepared = project.params.dataset(experiment), project.params.prepared(experiment)
    seen, manifest = project.params.seen(experiment), read_manifest(prepared, project.data)
    identity = {"experiment": experiment, "dataset": dataset}

    def compute(store: RunStore) -> Outputs:
        from acf.data.prepared.tensors import load_samples
        from acf.evaluation.densities import measure_baselines
        from acf.reporting.image_table import image_table

        train, test = (load_samples(prepared, split, project.data, seen.levels, seen.average) for split in SPLITS)
        measured, per_image = measure_baselines(dataset, train, test, config)
        table = image_table(per_image)
        shown = [f"{name} {entry['bits_per_dim']:.4f}" for name, entry in measured["baselines"].items()]
        absent = [f"; {name} is not available: {reason}" for name, reason in measured["not_available"].items()]
        digest = hashlib.sha256(table).hexdigest()
        content = {**identity, **measured, "images_sha256": digest, "recipe": store.recipe}
        require_form(content, Baselines, output)
        files = {output.name: json_bytes(content), BASELINE_IMAGES: table}
        return Outputs(files, f"{', '.join(shown)} bits/dim{''.join(absent)}")

    output = project.baselines(experiment)
    return Computation(
        stage="baselines",
        settings={**identity, **seen.model_dump(mode="json"), "evaluation": config.model_dump(mode="json")},
        inputs={split: manifest.sha256[split] for split in SPLITS},
        paths=[output, project.baseline_images(experiment)],
        work=covariance(averaged_shape(manifest.shape, seen.average)),
        compute=compute,
    )
