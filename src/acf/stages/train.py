"""The stage `train`."""

from pathlib import Path

import torch

from acf.data import load, read_manifest
from acf.errors import ConfigError
from acf.flows.storage import CONFIG, WEIGHTS, save
from acf.runs.device import describe_device, select_device
from acf.runs.files import write_atomically
from acf.runs.recipe import recipe
from acf.runs.store import open_run
from acf.settings.config import ModelConfig
from acf.settings.params import Params, Run
from acf.training.batches import Batches
from acf.training.trainer import Trainer

HISTORY = "history.csv"


def train(dataset: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Train one model and write it to models/<dataset>/<variant>/seed<seed>.

    A finished run of the same recipe is restored without training, an interrupted one resumed.

    Raises:
        AcfError: bad configuration, missing data, values that are not finite, a block that is not contractive.
    """
    settings = Params(root / "params.yaml").resolve(dataset, variant)
    manifest = read_manifest(dataset, root / "data")
    model = ModelConfig(
        **settings.model.model_dump(),
        shape=manifest.shape,
        levels=settings.data.levels or manifest.levels,
        training_log_det=settings.training.log_det,
    )
    key = recipe(
        "train",
        {
            "dataset": dataset,
            "variant": variant,
            "model": model.model_dump(mode="json"),
            "training": settings.training.model_dump(mode="json"),
            "seed": seed,
        },
        {"train": manifest.sha256["train"]},
    )
    folder = root / "models" / Run(dataset, variant, seed).folder
    outputs = [folder / name for name in (WEIGHTS, CONFIG, HISTORY)]
    with open_run(key, root).locked() as store:
        if store.restore(outputs):
            return
        images = load(dataset, "train", root / "data", model.levels)
        held_out = settings.training.validation_images
        if held_out >= len(images):
            raise ConfigError(
                f"training.validation_images ({held_out}) leaves nothing of the {len(images)} images of {dataset}"
            )
        place = select_device(device)
        trainer = Trainer(
            model,
            settings.training,
            Batches(images, held_out, seed),
            seed,
            place,
            store.folder,
            f"train {dataset}/{variant}/seed{seed}",
        )
        flow, certificate = trainer.run()
        record = {
            "dataset": dataset,
            "variant": variant,
            "seed": seed,
            "recipe": key,
            "training": settings.training.model_dump(mode="json"),
            "train_seconds": round(trainer.seconds, 3),
            "train_steps": trainer.step,
            "device": describe_device(place),
            "certificate_worst": certificate.worst,
            "versions": {"torch": torch.__version__},
        }
        save(flow, folder, record)
        write_atomically(folder / HISTORY, trainer.history.as_csv().encode())
        store.keep(outputs)
        print(f"wrote {folder} (worst Lipschitz bound {certificate.worst:.4f})", flush=True)
