"""A small trainer."""

from pathlib import Path

import torch
from torch import Tensor

from acf.runs.ranks import ALONE, Ranks
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.batches import Batches
from acf.training.history import Watch, nobody
from acf.training.trainer import Trainer

CLASSES = 3
"""Of the images, where a task needs labels."""
CPU = torch.device("cpu")
SMALL: dict[str, object] = {"blocks": [1], "fc_blocks": 0}
"""The part of a model that makes it smaller still, where a test is not about the model."""


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trainer(
    folder: Path,
    model: dict[str, object] | None = None,
    ranks: Ranks = ALONE,
    watch: Watch = nobody,
    **training: object,
) -> Trainer:
    config: dict[str, object] = {
        "blocks": [2],
        "idim": 8,
        "fc_blocks": 1,
        "fc_width": 8,
        "squeeze_first": True,
        "levels": 17,
    }
    labelled = TrainingConfig.model_validate(training).task.reads_labels
    if labelled:
        config["classes"] = CLASSES
    settings = {"steps": 8, "batch_size": 8, "warmup_steps": 2, "validation_images": 10, "validate_every": 4}
    images = torch.randint(0, 17, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Trainer(
        ModelConfig.model_validate({"shape": (1, 8, 8)} | config | (model or {})),
        TrainingConfig.model_validate(settings | training),
        Batches(images, 10, 0, torch.arange(60) % CLASSES if labelled else None),
        0,
        CPU,
        folder,
        "test",
        ranks,
        watch,
    )
