"""A class of `torchvision.datasets` as a data set, by its name and arguments."""

import errno
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.progress import shown
from acf.data.formats.images import Target, fitted
from acf.data.formats.npy import PIECE, NpyWriter
from acf.data.formats.pictures import as_picture
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import SPLITS, Split
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import Divided
from acf.errors import ConfigError, DataError, MissingPackageError
from acf.errors import shown as shortened
from acf.extras import install_command, needed_by
from acf.runs.files import writing

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the operating system answers where a download cannot be written."""


class Targets:
    """Targets of the images of one split, of which only whole numbers are kept.

    Args:
        names: of the classes, if they have any.

    Attributes:
        labels: as whole numbers from 0.
        other: the first target that is no such number, as a text.
    """

    def __init__(self, names: list[str] | None) -> None:
        self.names = names
        self.labels: list[int] = []
        self.other: str | None = None

    def note(self, target: Any) -> None:
        """Add the target of the next image, a number or a tensor of one."""
        if getattr(target, "shape", None) in ((), (1,)):
            target = target.item()
        if isinstance(target, Integral) and int(target) >= 0:
            self.labels.append(int(target))
        elif self.other is None:
            self.other = shortened(target, 40)

    @property
    def largest(self) -> int:
        """The largest label; 0 without labels."""
        return max(self.labels, default=0)


class TorchvisionDataset(Divided, ImageDataset):
    """Base of data sets from `torchvision.datasets`, which `pip install 'acf[torchvision]'` brings.

    Items are read one by one. An item is an image, or a tuple whose first part is one and whose second is the target:
    an image of PIL, a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W); uint8, or real numbers in [0, 1], of
    which x becomes round(255 x). Each is cut to its middle and resized to `shape`.

    torchvision reads and checks its own files: what it unpickles or unpacks, it does here as well. Without the argument
    `root` it finds them in the data set's folder below `data/.downloads`, and fetches them to there if it can.

    Attributes:
        dataset: name of the class, `"STL10"`.
        arguments: of both splits, without `download`; `root` may begin with ~.
        splits: further arguments of each split, `{"train": {"split": "train"}, "test": {"split": "test"}}`; None for
            classes that have no splits, whose items are divided by `seed`.
        target_part: which part of the target is the label, a place or a key; None where it is the target itself, which
            then is one only if the targets of all items are whole numbers.
        class_names: names of the labels, where torchvision's `classes` are those of another kind of target.
    """

    dataset: ClassVar[str]
    arguments: ClassVar[Mapping[str, Any]] = {}
    splits: ClassVar[Mapping[Split, Mapping[str, Any]] | None] = None
    target_part: ClassVar[int | str | None] = None
    class_names: ClassVar[Sequence[str] | None] = None
    levels = 256
    manual = False

    def __init__(self) -> None:
        self._labels: Labels | None = None

    @property
    def source(self) -> str:  # type: ignore[override]
        """The class, its arguments and its labels, which the manifest keeps: what is made of others is made anew."""
        label = "" if self.target_part is None else f"; label: part {self.target_part!r} of the target"
        label += "" if self.class_names is None else f"; classes {', '.join(self.class_names)}"
        if self.splits is None:
            division = f"{self.test_share} of it held out for testing, seed {self.seed}"
            return f"{self._call(self.arguments)}; {division}{label}"
        return "; ".join(f"{split}: {self._call(self._arguments(split))}" for split in SPLITS) + label

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write the images of each split to a `.npy` file of its own, and keep their labels for `labels`.

        Raises:
            ConfigError: torchvision has no such class.
            MissingPackageError: torchvision is not installed.
            DataError: it is broken, its class fails, or an item is no image; says which.
        """
        paths: dict[Split, Path] = {}
        targets: dict[Split, Targets] = {}
        for split, (items, indices) in self._parts(downloads.folder).items():
            paths[split], targets[split] = scratch / f"{split}.npy", Targets(_names_of(items))
            pieces = self._pieces(split, items, indices, targets[split])
            with NpyWriter(paths[split], (*self.shape[1:], self.shape[0])) as writer:
                for piece in shown(pieces, f"reading {split} images", len(indices)):
                    writer.append(piece)
        self._labels = self._chosen(targets)
        return paths

    def labels(self, downloads: Downloads) -> Labels:
        """Return the labels that `export` has met, with the names in torchvision's `classes`, if there are any."""
        if self._labels is None:
            raise RuntimeError("export was not called before labels")
        return self._labels

    def _parts(self, folder: Path) -> dict[Split, tuple[Any, Sequence[int]]]:
        """Return, of each split, torchvision's data set and the places of the split's images in it."""
        if self.splits is not None:
            opened = {split: self._opened(self._arguments(split), folder) for split in SPLITS}
            return {split: (items, range(len(items))) for split, items in opened.items()}
        items = self._opened(self.arguments, folder)
        if len(items) < 2:
            raise DataError(f"{self._call(self.arguments)} has {len(items)} images; {self.name} needs at least two")
        return {split: (items, indices.tolist()) for split, indices in self.divide(len(items)).items()}

    def _arguments(self, split: Split) -> dict[str, Any]:
        return {**self.arguments, **(self.splits or {}).get(split, {})}

    def _opened(self, arguments: Mapping[str, Any], folder: Path) -> Any:
        """Return torchvision's data set; its files are fetched to `folder` only where they are not there."""
        made = _class_of(self.dataset, self.name)
        given = dict(arguments)
        if "root" in given:
            given["root"] = str(Path(given["root"]).expanduser())
        elif _takes(made, "root"):
            given["root"] = str(folder)
        try:
            try:
                return made(**given)
            except ImportError:
                raise
            except Exception:  # mostly a RuntimeError: the files are not there
                if "download" in given or not _takes(made, "download"):
                    raise
                return made(**given, download=True)
        except Exception as error:  # its classes raise errors of any kind
            if isinstance(error, OSError) and error.errno in REFUSALS:
                with writing(Path(error.filename or given.get("root", folder))):
                    raise
            raise DataError(f"{self._call(given)} fails: {_reason(error)}; {self._remedy(error, given)}") from None

    def _remedy(self, error: Exception, given: Mapping[str, Any]) -> str:
        if isinstance(error, ImportError):
            return "install that package"
        of_class = f"mend `arguments` or `splits` of the class of {self.name}"
        if isinstance(error, TypeError) or "root" not in given:
            return of_class
        return f"put its files into {given['root']} as torchvision's documentation says, or {of_class}"

    def _pieces(self, split: Split, items: Any, indices: Sequence[int], targets: Targets) -> Iterator[np.ndarray]:
        """Yield the images uint8 (n, H, W, C), and note the target of each in `targets`."""
        wanted = Target(self.shape, fit=True)
        size = max(1, PIECE // math.prod(self.shape))
        for start in range(0, len(indices), size):
            piece = []
            for index in indices[start : start + size]:
                where = f"item {index} of torchvision's {self.dataset} ({split})"
                image, target = self._item(items, index, where)
                piece.append(fitted(where, as_picture(image, where), wanted))
                targets.note(target)
            yield np.stack(piece)

    def _item(self, items: Any, index: int, where: str) -> tuple[Any, Any]:
        try:
            item = items[index]
        except Exception as error:  # a file that is missing or damaged, in any format
            raise DataError(f"{where} cannot be read: {_reason(error)}; mend its files, or fetch them again") from None
        if not isinstance(item, tuple):
            return item, None
        target: Any = item[1] if len(item) > 1 else None
        if self.target_part is None:
            return item[0], target
        try:
            return item[0], target[self.target_part]
        except Exception:  # the target is of any kind
            raise ConfigError(
                f"{where} has a {type(target).__name__} as its target, which has no part {self.target_part!r}; mend "
                f"`target_part` of the class of {self.name}"
            ) from None

    def _chosen(self, targets: Mapping[Split, Targets]) -> Labels:
        """Return the targets as labels, or none if they are something else.

        Raises:
            ConfigError: they are something else, but the class says which part of them is the label.
            DataError: the two splits have different classes.
        """
        for split, part in targets.items():
            if part.other is None:
                continue
            if self.target_part is not None:
                raise ConfigError(
                    f"a {split} image of {self.name} has the label {part.other}, no whole number from 0; mend "
                    "`target_part` of its class"
                )
            print(f"{self.name} has no labels: the target of a {split} image is {part.other}")
            return Labels()
        train, test = targets["train"], targets["test"]
        if train.names != test.names:
            raise DataError(
                f"the splits of {self.name} have different classes, so that a label is not the same in both: "
                f"{train.names} and {test.names}; let both have the same folders"
            )
        names = train.names if self.target_part is None else None  # torchvision's are those of the whole target
        names = names if self.class_names is None else list(self.class_names)
        return Labels(
            names=names if max(train.largest, test.largest) < len(names or ()) else None,
            train=train.labels,
            test=test.labels,
        )

    def _call(self, arguments: Mapping[str, Any]) -> str:
        """Return the call as a person would write it; a value that has no text of its own is named by its type."""
        values = ", ".join(f"{name}={_text(value)}" for name, value in arguments.items())
        return f"torchvision.datasets.{self.dataset}({values})"


def _class_of(name: str, dataset: str) -> Any:
    """Return the class `name` of `torchvision.datasets`, which is imported here and nowhere else."""
    try:
        with needed_by(f"data set {dataset}"):
            import torchvision.datasets as known
            from torch.utils.data import Dataset
    except MissingPackageError:
        raise
    except Exception as error:  # one that was built for another version of torch
        raise DataError(
            f"data set {dataset} needs torchvision, and the one that is installed does not work ({_reason(error)}); "
            f"install the version that belongs to this torch: {install_command('torchvision')}"
        ) from None
    made = getattr(known, name, None)
    if inspect.isclass(made) and issubclass(made, Dataset) and made is not known.VisionDataset:
        return made
    raise ConfigError(f"data set {dataset} cannot be used: torchvision.datasets has no class {name!r}")


def _takes(made: type, argument: str) -> bool:
    """Whether a class takes an argument, itself or by handing it on to the classes it is derived from."""
    for base in made.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        if argument in parameters:
            return True
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


def _names_of(items: Any) -> list[str] | None:
    """Return the names of the classes, if the data set has them: texts, or as in ImageNet tuples of synonyms."""
    classes = getattr(items, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    names = [", ".join(name) if isinstance(name, tuple) else name for name in classes]
    return names if all(isinstance(name, str) for name in names) else None


def _text(value: Any) -> str:
    text = repr(value)  # of functions and of objects without a text of their own it has their place in memory
    return getattr(value, "__name__", type(value).__name__) if " at 0x" in text else text


def _reason(error: Exception) -> str:
    """Return what an error says, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
