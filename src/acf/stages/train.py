"""The stage `train`."""

from pathlib import Path

import torch

from acf.data import load, read_manifest
from acf.errors import ConfigError
from acf.flows.storage import CONFIG, WEIGHTS, serialise
from acf.runs.device import describe_device, select_device
from acf.runs.files import write_atomically
from acf.runs.store import RunStore
from acf.settings.config import ModelConfig
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs
from acf.stages.project import HISTORY, Project
from acf.training.batches import Batches
from acf.training.checkpoint import NAME as CHECKPOINT
from acf.training.trainer import Trainer

THREADS = "threads.txt"
"""The number of threads that the last start of a training had, beside its checkpoints."""


def train(experiment: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Train one model and write it to models/<experiment>/<variant>/seed<seed>.

    A finished run of the same recipe is restored without training, an interrupted one resumed.

    Raises:
        AcfError: bad configuration, missing data, values that are not finite, a block that is not contractive.
    """
    project, run = Project(root), Run(experiment, variant, seed)
    settings = project.params.resolve(experiment, variant)
    dataset = project.params.dataset(experiment)
    manifest = read_manifest(dataset, project.data)
    model = ModelConfig(
        **settings.model.model_dump(),
        shape=manifest.shape,
        levels=project.params.levels(experiment) or manifest.levels,
        training_log_det=settings.training.log_det,
    )
    identity = {"experiment": experiment, "dataset": dataset, "variant": variant, "seed": seed}
    training = settings.training.model_dump(mode="json")

    def compute(store: RunStore) -> Outputs:
        images = load(dataset, "train", project.data, model.levels)
        held_out = settings.training.validation_images
        if held_out >= len(images):
            raise ConfigError(
                f"training.validation_images ({held_out}) leaves nothing of the {len(images)} images of {dataset}"
            )
        place = select_device(device)
        batches = Batches(images, held_out, seed)
        title = f"train {run.folder.as_posix()}"
        _note_threads(title, store.folder)
        trainer = Trainer(model, settings.training, batches, seed, place, store.folder, title)
        flow, certificate = trainer.run()
        record = {
            **identity,
            "recipe": store.recipe,
            "training": training,
            "train_seconds": round(trainer.seconds, 3),
            "train_steps": trainer.step,
            "weights_step": trainer.kept_step,
            "device": describe_device(place),
            "certificate_worst": certificate.worst,
            "versions": {"torch": torch.__version__},
        }
        files = {**serialise(flow, record), HISTORY: trainer.history.as_csv().encode()}
        summary = f"worst Lipschitz bound {certificate.worst:.4f}"
        return Outputs(files, summary, trainer.checkpoints.loss(trainer.step))

    Computation(
        stage="train",
        settings={**identity, "model": model.model_dump(mode="json"), "training": training},
        inputs={"train": manifest.sha256["train"]},
        folder=project.model(run),
        names=(WEIGHTS, CONFIG, HISTORY),
        work=work(settings, "train", manifest.shape),
    ).restore_or(compute, project.root)


def _note_threads(title: str, folder: Path) -> None:
    """Note the number of threads beside the checkpoints in `folder`, and say if the last start had another.

    Sums over another number of threads are rounded differently.
    """
    path, number = folder / THREADS, str(torch.get_num_threads())
    before = path.read_text(encoding="utf-8") if path.exists() else number
    if before != number and (folder / CHECKPOINT).exists():
        print(
            f"{title}: the number of threads is {number} now and was {before} before the interruption; the result is "
            "that of an uninterrupted training up to rounding, not to the bit",
            flush=True,
        )
    write_atomically(path, number.encode())
