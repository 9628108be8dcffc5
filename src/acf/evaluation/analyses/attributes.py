"""Attribute arithmetic with labels: test images moved from the mean of their class to that of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.grids import grey, tile
from acf.evaluation.likelihood import check_images, dequantised
from acf.evaluation.nearest import nearest
from acf.flows.flow import Flow
from acf.settings.analysis_config import AttributesConfig

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

ITERATIONS = 300
"""Of the classifier's fit, at most; its accuracy on test images says whether they were enough."""
DECIMALS = 4
"""Of the distances that are stored, in grey levels."""


@torch.no_grad()
def attributes(flow: Flow, analysed: Analysed, config: AttributesConfig) -> Found:
    """Move test images of class a by alpha (mean of class b - mean of class a), in latent space and between pixels.

    In latent space the image is f^-1(f(x) + alpha (m_b - m_a)), with m_c the mean of f over the training images of
    class c; between pixels, the baseline without a model, it is x + alpha (x_b - x_a) with the mean images x_c. Values
    that leave [0, 1) are put on its border. Images are dequantised with noise that is the same for all models, and b
    goes through the other classes in turn. Two judges look at the images that result: a multinomial logistic regression
    that was fitted to the pixels of the training images, and the training image at the least Euclidean distance of grey
    levels.

    Returns:
        `arithmetic`, or None and the `reason`. It has `alphas`; numbers of `train_images` and `classes`; `classifier`:
        its `accuracy` on all test images with the standard error `se`; `inverse_bound`: the largest proven bound of
        the l2 error with which a block was inverted; and per space (`latent`, `pixels`) for each alpha a list over
        images: `taken`, 1 where the classifier takes the image for class b, `neighbour`, 1 where the nearest training
        image is of class b, `distances` to it in grey levels; and `outside`, the share of values that left [0, 1). The
        picture has two rows per image, latent space above pixels, and an image per alpha; test images alone where there
        is no arithmetic.

    Raises:
        DataError: there is no test image, or they are not the flow's.
    """
    test = analysed.test.first(config.images)
    check_images(flow, test[:0])
    if not len(test):
        raise DataError("attribute arithmetic needs a test image, and the data set has none")
    material = _Material.of(analysed, config)
    if isinstance(material, str):
        shown = test[: config.pictured_images]
        picture = tile((shown.double() * (255 / (flow.config.grey_levels - 1))).round().to(torch.uint8), len(shown))
        return Found({"reason": material, "arithmetic": None}, picture)
    judge = _Judge.of(material, flow.config.grey_levels)
    spaces, bound = _moved(flow, analysed, material, config.alphas)
    content = {
        "alphas": list(config.alphas),
        "train_images": len(material.train),
        "classes": len(material.classes),
        "inverse_bound": bound,
        **_judged(judge, spaces, material, analysed, flow),
    }
    shown = torch.stack([moved.images[:, : config.pictured_images] for moved in spaces.values()])
    rows = shown.permute(2, 0, 1, 3, 4, 5).flatten(0, 2)  # by image, space and alpha
    return Found({"reason": None, "arithmetic": content}, tile(grey(rows, flow.config.grey_levels), len(config.alphas)))


def targets(own: Tensor, classes: Tensor) -> Tensor:
    """Return the class (N,) that each image is moved to: not its own, all others in turn over the images of a class.

    Args:
        own: class (N,) of each image, each among `classes`.
        classes: different classes (K,) in rising order, K >= 2.
    """
    place = torch.searchsorted(classes, own)
    rank = torch.zeros_like(place)
    for one in range(len(classes)):
        rank[place == one] = torch.arange(int((place == one).sum()))
    return classes[(place + 1 + rank % (len(classes) - 1)) % len(classes)]


@dataclass(frozen=True)
class _Material:
    """Training images with their classes, and the test images that are moved, all on the CPU."""

    train: Images
    train_labels: Tensor
    classes: Tensor
    images: Tensor
    own: Tensor
    other: Tensor

    @classmethod
    def of(cls, analysed: Analysed, config: AttributesConfig) -> _Material | str:
        """Return the first images of each split, or why there is no arithmetic with them."""
        labels = analysed.labels
        if labels.train is None or labels.test is None:
            return "the data set has no labels"
        train = analysed.train.first(config.train_images)
        train_labels = torch.tensor(labels.train[: len(train)])
        classes = train_labels.unique()
        if len(classes) < 2:
            return "the training images are not of two classes"
        own = torch.tensor(labels.test)[: config.images]
        known = torch.isin(own, classes)
        if int(known.sum()) < 2:
            return "fewer than two test images are of the classes of the training images"
        own = own[known]
        images = analysed.test.first(config.images)[known.nonzero()[:, 0]]
        return cls(train, train_labels, classes, images, own, targets(own, classes))


@dataclass(frozen=True)
class _Moved:
    """Images (alphas, N, C, H, W) in [0, 1), and the share of their values that had left it."""

    images: Tensor
    outside: float


def _moved(flow: Flow, analysed: Analysed, material: _Material, alphas: list[float]) -> tuple[dict[str, _Moved], float]:
    """Return the images of each space, and the largest proven error with which a block was inverted."""
    x = torch.cat(_on_device(flow, Images(material.images, analysed.test.levels), analysed, 0))
    z = torch.cat([flow.transform(batch) for batch in x.split(analysed.evaluation.batch_size)])
    moves = _moves(flow, analysed, material)
    spaces: dict[str, _Moved] = {}
    bound = 0.0
    for space, points in {"latent": z, "pixels": x.flatten(1)}.items():
        images, outside = [], 0
        for alpha in alphas:
            moved = points + alpha * moves[space]
            if space == "latent":
                moved, largest = _decoded(flow, moved, analysed.evaluation.batch_size)
                bound = max(bound, largest)
            moved = moved.view_as(x)
            images.append(moved.clamp(0, 1 - torch.finfo(x.dtype).eps / 2))
            outside += int((images[-1] != moved).sum())
        spaces[space] = _Moved(torch.stack(images), outside / (len(alphas) * x.numel()))
    return spaces, bound


def _on_device(flow: Flow, images: Images, analysed: Analysed, offset: int) -> list[Tensor]:
    """Return batches of dequantised images where the flow is."""
    parameter = next(flow.parameters())
    noise = torch.Generator("cpu").manual_seed(analysed.evaluation.seed + offset)
    batches = dequantised(images, flow.config.grey_levels, noise, analysed.evaluation.batch_size, parameter.dtype)
    return [x.to(parameter.device) for x in batches]


def _moves(flow: Flow, analysed: Analysed, material: _Material) -> dict[str, Tensor]:
    """Return by space the mean of the target's class minus that of the own class, (N, D)."""
    count, size = len(material.classes), math.prod(flow.shape)
    first = next(flow.parameters())
    sums = {space: first.new_zeros(count, size) for space in ("latent", "pixels")}
    places = torch.searchsorted(material.classes, material.train_labels).to(first.device)
    start = 0
    for x in _on_device(flow, material.train, analysed, 1):
        place = places[start : start + len(x)]
        start += len(x)
        sums["latent"].index_add_(0, place, flow.transform(x))
        sums["pixels"].index_add_(0, place, x.flatten(1))
    numbers = places.bincount(minlength=count)[:, None]
    a, b = (torch.searchsorted(material.classes, which).to(first.device) for which in (material.own, material.other))
    means = {space: total / numbers for space, total in sums.items()}
    return {space: mean[b] - mean[a] for space, mean in means.items()}


def _decoded(flow: Flow, z: Tensor, size: int) -> tuple[Tensor, float]:
    """Return f^-1 of the points (N, D), `size` at a time, and the largest proven error of a block."""
    inversions = [flow.invert(batch) for batch in z.split(size)]
    bounds = [float(bound.max()) for inversion in inversions for bound in inversion.bounds.values()]
    return torch.cat([inversion.x for inversion in inversions]), max(bounds, default=0.0)


def _judged(
    judge: _Judge, spaces: dict[str, _Moved], material: _Material, analysed: Analysed, flow: Flow
) -> dict[str, Any]:
    """Return what both judges say of the images in each space, and how good the classifier is."""
    levels, device = flow.config.grey_levels, next(flow.parameters()).device
    content: dict[str, Any] = {"classifier": judge.accuracy(analysed)}
    for space, moved in spaces.items():
        taken, neighbour, distances = [], [], []
        for images in moved.images:
            known = (images * levels).floor().to(torch.uint8).cpu()
            taken.append((judge.classes_of(known) == material.other).int().tolist())
            found = nearest(known, material.train, device)
            neighbour.append((material.train_labels[found.indices] == material.other).int().tolist())
            distances.append([round(distance, DECIMALS) for distance in found.distances.tolist()])
        content[space] = {
            "taken": taken,
            "neighbour": neighbour,
            "distances": distances,
            "outside": moved.outside,
        }
    return content


@dataclass(frozen=True)
class _Judge:
    """A classifier of grey levels."""

    fitted: LogisticRegression
    levels: int

    @classmethod
    def of(cls, material: _Material, levels: int) -> _Judge:
        """Fit a multinomial logistic regression to the training images."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = LogisticRegression(max_iter=ITERATIONS).fit(
                _pixels(material.train[:], levels), material.train_labels.numpy()
            )
        return cls(fitted, levels)

    def classes_of(self, images: Tensor) -> Tensor:
        """Return the most probable class (N,) of each image, uint8 (N, C, H, W)."""
        return torch.from_numpy(self.fitted.predict(_pixels(images, self.levels)))

    def accuracy(self, analysed: Analysed) -> dict[str, float]:
        """Return the share of test images that are given their class, and its standard error."""
        given = torch.cat([self.classes_of(piece) for piece in analysed.test.pieces(1024)])
        right = float((given == torch.tensor(analysed.labels.test)).double().mean())
        return {"accuracy": right, "se": math.sqrt(right * (1 - right) / len(given))}


def _pixels(images: Tensor, levels: int) -> Any:
    """Return grey levels as values in [0, 1], an array (N, D) in float32."""
    return (images.flatten(1).float() / (levels - 1)).numpy()
