"""The stage `sample`: samples, reconstructions and nearest training images, as pictures and in numbers."""

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from acf.data import read_manifest
from acf.data.prepared.manifest import SPLITS
from acf.flows.record import weights_hash
from acf.reporting.result_files import require_form
from acf.reporting.sampled_files import SamplesFile
from acf.runs.device import describe_device
from acf.runs.leases import leased_device
from acf.runs.store import RunStore
from acf.settings.config import model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.project import SAMPLE_FILES, SAMPLES_RECORD, Project
from acf.stages.trained import model_inputs, read_trained

if TYPE_CHECKING:
    import torch


def sample(experiment: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Write pictures of samples and reconstructions, and samples.json, to samples/<experiment>/<variant>/seed<seed>.

    All variants and seeds start from the same latent noise, at every temperature. The reconstructions are test images
    above f^-1(f(x)).

    Raises:
        NotContractiveError: a block is not proven contractive, so the flow is not inverted.
        AcfError: bad configuration, missing data or model.
    """
    computation(Project(root), Run(experiment, variant, seed), device).restore_or_compute(root)


def computation(
    project: Project, run: Run, device: str = "auto", weights: Callable[[Path], str] = weights_hash
) -> Computation:
    """Return the pictures of the model of `run`, which are not drawn yet.

    Args:
        project: where everything is.
        run: the model.
        device: as for `sample`.
        weights: how the hash of the weights in a model's folder is had.

    Raises:
        AcfError: bad configuration, missing data or model.
    """
    settings = project.params.resolve(run.experiment, run.variant)
    dataset = project.params.dataset(run.experiment)
    manifest = read_manifest(dataset, project.data)
    config = settings.sampling
    model, folder = project.model(run), project.samples(run)
    record = read_trained(project, run)
    levels = model_config_from(record.model).levels
    identity = run.identity(dataset)

    def compute(store: RunStore) -> Outputs:
        with leased_device(device) as place:
            return draw(place, store.recipe)

    def draw(place: "torch.device", recipe: str) -> Outputs:
        import torch

        from acf.data import load as load_images
        from acf.evaluation.grids import png
        from acf.evaluation.sampled import sampled
        from acf.flows.storage import load

        flow = load(model, place)
        train, test = (load_images(dataset, split, project.data, levels) for split in SPLITS)
        print(f"sample {run.folder.as_posix()}", flush=True)
        started = time.perf_counter()
        pictures, numbers = sampled(flow, train, test, config)
        content = {
            **identity,
            "settings": config.model_dump(mode="json"),
            **numbers,
            "seconds": round(time.perf_counter() - started, 3),
            "device": describe_device(place),
            "train_recipe": record.recipe,
            "recipe": recipe,
            "versions": {"acf": version("acf"), "torch": torch.__version__},
        }
        require_form(content, SamplesFile, folder / SAMPLES_RECORD)
        files = {f"{name}.png": png(picture, recipe=recipe) for name, picture in pictures.items()}
        return Outputs({**files, SAMPLES_RECORD: json_bytes(content)})

    return Computation(
        stage="sample",
        settings={**identity, "sampling": config.model_dump(mode="json"), "model": record.model},
        inputs={**{split: manifest.sha256[split] for split in SPLITS}, **model_inputs(record, weights(model))},
        paths=[folder / name for name in SAMPLE_FILES],
        work=work(settings, "sample", manifest.shape),
        compute=compute,
    )
