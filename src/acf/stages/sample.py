"""The stage `sample`: grids of samples and of reconstructions."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch

from acf.data import load as load_images
from acf.evaluation.grids import grey, png, tile
from acf.evaluation.likelihood import dequantise
from acf.flows.storage import load, weights_hash
from acf.runs.leases import leased_device
from acf.runs.store import RunStore
from acf.settings.config import model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs
from acf.stages.project import RECONSTRUCTIONS, SAMPLES, Project
from acf.stages.trained import read_trained


def sample(experiment: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Write samples.png and reconstructions.png to samples/<experiment>/<variant>/seed<seed>.

    All variants and seeds start from the same latent noise. The reconstructions are test images above f^-1(f(x)).

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
    config = settings.sampling
    model = project.model(run)
    record = read_trained(project, run)
    levels = model_config_from(record.model).levels
    images = load_images(dataset, "test", project.data, levels)[: config.reconstructions]

    def compute(store: RunStore) -> Outputs:
        with leased_device(device) as place:
            return draw(place, store.recipe)

    def draw(place: torch.device, recipe: str) -> Outputs:
        flow = load(model, place)
        noise = torch.Generator().manual_seed(config.seed)
        samples = grey(flow.sample(config.samples, config.temperature, noise), levels)
        x = dequantise(images, levels, noise).to(next(flow.parameters()).device)
        back = flow.inverse(flow.transform(x)).clamp(0, 1 - 1e-6)
        pairs = torch.cat([grey(x, levels), grey(back, levels)])
        columns = math.ceil(math.sqrt(len(samples)))
        pictures = {SAMPLES: tile(samples, columns), RECONSTRUCTIONS: tile(pairs, len(x))}
        return Outputs({name: png(picture, recipe=recipe) for name, picture in pictures.items()})

    return Computation(
        stage="sample",
        settings={
            **run._asdict(),
            "dataset": dataset,
            "sampling": config.model_dump(mode="json"),
            "model": record.model,
        },
        inputs={
            "weights": weights(model),
            "images": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest(),
        },
        paths=[project.samples(run) / name for name in (SAMPLES, RECONSTRUCTIONS)],
        work=work(settings, "sample", images.shape[1:]),
        compute=compute,
    )
