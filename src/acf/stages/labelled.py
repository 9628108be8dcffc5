"""The labels of a data set, for the stages of models that have classification heads."""

from pathlib import Path

from acf.data.prepared.labels import kept_labels, read_labels
from acf.data.prepared.manifest import Manifest, prepare_hint
from acf.errors import ConfigError, DataError


def number_of_classes(dataset: str, task: str, root: Path) -> int:
    """Return the number of classes of a data set for a flow that is trained for `task`.

    Raises:
        ConfigError: the data set has no labels, or all images have the same.
        DataError: as `acf.data.prepared.labels.read_labels`.
    """
    classes = read_labels(dataset, root).classes
    if classes is None:
        raise ConfigError(
            f"training.task.kind is {task}, which needs labels, and the data set {dataset} has none; choose density, "
            "or another data set"
        )
    if classes < 2:
        raise ConfigError(f"training.task.kind is {task}, and all images of the data set {dataset} have one label")
    return classes


def labels_input(manifest: Manifest, classes: int | None) -> dict[str, str]:
    """Return what the recipe of a stage says of the labels: their hash where a model has `classes`, or else nothing.

    Raises:
        DataError: the data set was prepared before labels were kept.
    """
    return {} if classes is None else {"labels": kept_labels(manifest)}


def split_labels(dataset: str, split: str, classes: int | None, root: Path) -> list[int] | None:
    """Return the labels of all images of a split for a model with `classes`; None for one without.

    Raises:
        DataError: as `acf.data.prepared.labels.read_labels`, or the labels are not those of the model.
    """
    if classes is None:
        return None
    labels = read_labels(dataset, root)
    if labels.classes is None or labels.classes > classes:
        raise DataError(
            f"the model tells {classes} classes apart, and the data set {dataset} has {labels.classes or 'no labels'}; "
            f"train the model again, or {prepare_hint(dataset)}"
        )
    found: list[int] = getattr(labels, split)
    return found
