"""How far the law of samples is from that of images: Fréchet distances on features."""

import torch
from torch import Tensor

from acf.errors import ConfigError
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.frechet_distance import bootstrap_error, expected_between_equals, frechet_distance, moments
from acf.evaluation.inception_distance import FidUnavailableError, inception_distance
from acf.evaluation.principal_components import fit_components, sample_of
from acf.flows.flow import Flow
from acf.settings.analysis_config import FrechetConfig


@torch.no_grad()
def frechet(flow: Flow, analysed: Analysed, config: FrechetConfig) -> Found:
    """Measure the Fréchet distance of samples to test images, on principal components of training images, and FID.

    The floor is the same distance between as many training images, drawn at random, and the same test images: a perfect
    model's samples would be about as far, as both sets are finite.

    Returns:
        `distance`, `distance_se` and `floor`, `floor_se`, with standard errors by bootstrap; `bias`: what the distance
        is on average between sets of these sizes from one Gaussian; `fid`, or None and `fid_reason`; numbers of images
        and features, and `explained`, the share of the training images' variance along the features.

    Raises:
        ConfigError: the data set has not as many features as the settings ask for.
    """
    levels = flow.config.grey_levels
    device = next(flow.parameters()).device
    draw = torch.Generator().manual_seed(analysed.evaluation.seed)
    test = analysed.test.first(config.samples)[:]
    samples = _samples(flow, config, draw)
    try:
        components = fit_components(sample_of(analysed.train, config.fitted, draw), config.features, levels, device)
    except ValueError as error:
        raise ConfigError(f"analyses.frechet.features: {error}; ask for fewer") from None
    train = sample_of(analysed.train, config.samples, draw)
    features = {name: components.features(x) for name, x in {"samples": samples, "train": train, "test": test}.items()}
    of = {name: moments(values) for name, values in features.items()}
    errors = {
        name: bootstrap_error(features[name], features["test"], config.bootstrap, draw) for name in ("samples", "train")
    }
    fid, reason = _fid(samples, test, levels, device, config.fid)
    return Found(
        {
            "distance": frechet_distance(of["samples"], of["test"]),
            "distance_se": errors["samples"],
            "floor": frechet_distance(of["train"], of["test"]),
            "floor_se": errors["train"],
            "bias": expected_between_equals(of["test"], len(samples), len(test)),
            "samples": len(samples),
            "train_images": len(train),
            "test_images": len(test),
            "features": config.features,
            "fitted_images": min(config.fitted, len(analysed.train)),
            "explained": components.explained,
            "fid": fid,
            "fid_reason": reason,
        }
    )


def _samples(flow: Flow, config: FrechetConfig, generator: torch.Generator) -> Tensor:
    """Return the grey levels of samples, uint8 on the CPU."""
    levels = flow.config.grey_levels
    batches = []
    for start in range(0, config.samples, config.batch_size):
        count = min(config.batch_size, config.samples - start)
        x = flow.sample(count, config.temperature, generator)
        batches.append((x * levels).floor().to(torch.uint8).cpu())
    return torch.cat(batches)


def _fid(
    samples: Tensor, test: Tensor, levels: int, device: torch.device, wanted: bool
) -> tuple[float | None, str | None]:
    if not wanted:
        return None, "it is not asked for (analyses.frechet.fid)"
    try:
        return inception_distance(samples, test, levels, device), None
    except FidUnavailableError as error:
        return None, str(error)
