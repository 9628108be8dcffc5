"""The stage `evaluate`."""

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acf.data import read_manifest
from acf.data.prepared.seen import average_between
from acf.errors import DataError
from acf.flows.record import CONFIG, weights_hash
from acf.reporting.result_files import require_form
from acf.reporting.schemas import Metrics
from acf.runs.device import describe_device
from acf.runs.leases import leased_device
from acf.runs.store import RunStore
from acf.settings.config import model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.labelled import labels_input, split_labels
from acf.stages.project import IMAGES, Project
from acf.stages.trained import model_inputs, read_trained

if TYPE_CHECKING:
    import torch


def evaluate(experiment: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Measure a trained model and write its metrics.json and images.csv.

    The first has the means over test images and lies in results/<experiment>/<variant>/seed<seed>, the second has
    every image and lies in the same place below analyses.

    Raises:
        NotContractiveError: a block is not proven contractive; names it, and nothing is written.
        AcfError: bad configuration, missing data or model.
    """
    computation(Project(root), Run(experiment, variant, seed), device).restore_or_compute(root)


def computation(
    project: Project, run: Run, device: str = "auto", weights: Callable[[Path], str] = weights_hash
) -> Computation:
    """Return the evaluation of the model of `run`, which is not begun.

    Args:
        project: where everything is.
        run: the model.
        device: as for `evaluate`.
        weights: how the hash of the weights in a model's folder is had.

    Raises:
        AcfError: bad configuration, missing data or model.
    """
    settings = project.params.resolve(run.experiment, run.variant)
    config = settings.evaluation
    prepared = project.params.prepared(run.experiment)
    manifest = read_manifest(prepared, project.data)
    model = project.model(run)
    record = read_trained(project, run)
    if None in (record.train_seconds, record.train_steps):
        raise DataError(f"{model / CONFIG} does not say how long it was trained; run: acf train {run.options}")
    identity = run.identity(project.params.dataset(run.experiment))
    architecture = model_config_from(record.model)
    classes, average = architecture.classes, average_between(manifest.shape, architecture.shape)

    def compute(store: RunStore) -> Outputs:
        with leased_device(device) as place:
            return measure(store, place)

    def measure(store: RunStore, place: "torch.device") -> Outputs:
        import torch

        from acf.data.prepared.tensors import load_samples
        from acf.evaluation.metrics import evaluate_flow
        from acf.flows.storage import load
        from acf.reporting.image_table import image_table

        flow = load(model, place)
        images = load_samples(prepared, "test", project.data, flow.config.levels, average).first(config.images)
        if len(images) < 2:
            raise DataError(f"{prepared}: a standard error needs at least two test samples, there are {len(images)}")
        print(f"evaluate {run.folder.as_posix()}: {len(images)} {manifest.unit}, {config.draws} draws", flush=True)
        labels = split_labels(prepared, "test", classes, project.data)
        measured, per_image = evaluate_flow(flow, images, config, labels and labels[: len(images)])
        table = image_table(per_image)
        metrics = {
            **identity,
            **measured,
            "train_seconds": record.train_seconds,
            "train_steps": record.train_steps,
            "train_device": record.device,
            "train_recipe": record.recipe,
            "images_sha256": hashlib.sha256(table).hexdigest(),
            "device": describe_device(place),
            "recipe": store.recipe,
            "versions": {"acf": version("acf"), "torch": torch.__version__},
        }
        require_form(metrics, Metrics, output)
        return Outputs({output.name: json_bytes(metrics), IMAGES: table}, _summary(measured))

    output = project.metrics(run)
    return Computation(
        stage="evaluate",
        settings={**identity, "model": record.model, "evaluation": config.model_dump(mode="json")},
        inputs={
            "test": manifest.sha256["test"],
            **labels_input(manifest, classes),
            **model_inputs(record, weights(model)),
        },
        paths=[output, project.images(run)],
        work=work(settings, "evaluate", architecture.shape),
        compute=compute,
    )


def _summary(measured: Mapping[str, Any]) -> str:
    parts = [
        f"{measured['bits_per_dim']:.4f} ± {measured['bits_per_dim_se']:.4f} bits/dim",
        f"worst Lipschitz bound {measured['certificate']['worst']:.4f}",
        f"reconstruction error {measured['reconstruction_error']:.1e}",
    ]
    if measured["forward_error"]:
        parts.append(f"error of the forward map {measured['forward_error']:.1e} bits/dim")
    if found := measured.get("classification"):
        parts += [
            f"accuracy {found['accuracy']:.4f} ± {found['accuracy_se']:.4f}",
            f"calibration error {found['calibration_error']:.4f} ± {found['calibration_error_se']:.4f}",
        ]
    return ", ".join(parts)
