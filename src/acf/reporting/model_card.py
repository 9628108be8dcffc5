"""The model card of a trained and evaluated model: every number in it comes from the files of its stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from acf.flows.publishing.plain_card import LICENCE_UNKNOWN, USAGE, header, limits, papers, summary
from acf.reporting.schemas import Metrics, TrainedModel
from acf.reporting.wording import NOT_AVAILABLE, bound, count, decimal, duration, scientific, with_error
from acf.settings.config import ModelConfig, model_config_from

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class DataFacts:
    """What a card says of the data.

    Attributes:
        name: of the data set.
        source: where it comes from and how it was split.
        licence: under which it is handed out.
        citation: what to cite.
        counts: numbers of images or rows by split.
        columns: of a table, `name`, `mean` and `std` of each value: x is (value - mean) / std. None for images.
    """

    name: str
    source: str
    licence: str
    citation: str
    counts: Mapping[str, int]
    columns: Sequence[Mapping[str, Any]] | None = None


def model_card(
    trained: TrainedModel, settings: Mapping[str, Any], metrics: Metrics, data: DataFacts, licence: str, acf: str
) -> str:
    """Return the text of the card, markdown below the metadata that the Hub reads.

    Args:
        trained: how the model was trained.
        settings: of the training, as they were recorded; empty if they were not.
        metrics: what was measured of it.
        data: what it was trained on.
        licence: of the weights, as the Hub names it.
        acf: version of this package.
    """
    certificate, config = metrics.certificate, model_config_from(trained.model)
    environment = Environment(
        loader=PackageLoader("acf.reporting"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("model_card.md.j2").render(
        variant=metrics.variant,
        dataset=metrics.dataset,
        experiment=metrics.experiment,
        seed=metrics.seed,
        what=summary(config),
        input=_input(config),
        usage=USAGE,
        data=_data(data, config),
        measured=_measured(metrics, config),
        how=_how(metrics, config),
        worst=bound(certificate.worst),
        worst_block=f" ({certificate.worst_block})",
        blocks=[(block.name, bound(block.upper)) for block in certificate.blocks],
        training=_training(trained, settings, metrics, config.unit),
        limits=_limits(metrics, licence),
        general_limits=limits(config),
        origin=_origin(trained, metrics, acf),
        papers=papers(config),
    )
    return f"{_header(config, metrics, licence)}\n{text}"


def _header(config: ModelConfig, metrics: Metrics, licence: str) -> str:
    found = metrics.classification
    of_labels = [] if found is None else [{"type": "accuracy", "name": "accuracy", "value": found.accuracy}]
    name = f"{metrics.experiment}/{metrics.variant}, seed {metrics.seed}"
    result = {
        "task": {"type": "density-estimation", "name": "density estimation"},
        "dataset": {"type": metrics.dataset, "name": metrics.dataset, "split": "test"},
        "metrics": [
            {"type": "bits_per_dim", "name": "bits/dim", "value": metrics.bits_per_dim},
            {"type": "lipschitz_bound", "name": "largest proven bound", "value": metrics.certificate.worst},
            *of_labels,
        ],
    }
    return header(
        config,
        licence,
        datasets=[metrics.dataset],
        metrics=["bits_per_dim", *(entry["type"] for entry in of_labels)],
        **{"model-index": [{"name": name, "results": [result]}]},
    )


def _input(config: ModelConfig) -> str:
    shape = f"x (B, {', '.join(map(str, config.shape))})"
    if config.is_of_images:
        return f"{shape} in [0, 1): (grey level + uniform noise) / {config.levels}"
    return f"{shape}: (value - mean) / std of each column, which `data` in `config.json` has"


def _data(data: DataFacts, config: ModelConfig) -> Rows:
    return [
        ("data set", data.name),
        ("source", data.source),
        ("licence", data.licence),
        ("citation", data.citation),
        (config.unit, ", ".join(f"{count(number)} {split}" for split, number in data.counts.items())),
        ("shape", " x ".join(map(str, config.shape))),
        *([("levels", str(config.levels))] if config.is_of_images else []),
        *([("columns", ", ".join(str(column["name"]) for column in data.columns))] if data.columns else []),
    ]


def _measured(metrics: Metrics, config: ModelConfig) -> Rows:
    parts, found = metrics.parts, metrics.classification
    of_labels = (
        []
        if found is None
        else [
            (f"accuracy, of {found.classes} classes", with_error(found.accuracy, found.accuracy_se)),
            ("cross-entropy, in nats", with_error(found.cross_entropy, found.cross_entropy_se)),
            ("calibration error", with_error(found.calibration_error, found.calibration_error_se)),
            ("calibration error if the confidences were right", decimal(found.calibration_error_floor)),
        ]
    )
    return [
        ("bits/dim", with_error(metrics.bits_per_dim, metrics.bits_per_dim_se)),
        ("its part of log p(z)", decimal(parts.log_prob_z)),
        ("its part of the log-determinant", decimal(parts.log_abs_det)),
        *([("its part of dequantisation", decimal(parts.dequantisation))] if config.is_of_images else []),
        *of_labels,
        ("certificate: largest proven bound", bound(metrics.certificate.worst)),
        ("reconstruction error", scientific(metrics.reconstruction_error)),
        *([("error of the forward map, bits/dim", scientific(metrics.forward_error))] if metrics.forward_error else []),
        ("parameters", count(metrics.parameters)),
    ]


def _how(metrics: Metrics, config: ModelConfig) -> str:
    draws = metrics.bits_per_dim_se_draws
    of_draws = NOT_AVAILABLE if draws is None else scientific(draws)
    drawn = f"{count(metrics.test_images)} test {config.unit} and {metrics.draws} draws of the"
    mean = (
        f"{drawn} dequantisation noise and of the estimator for each; its expectation bounds that of the discrete "
        "images from above."
        if config.is_of_images
        else f"{drawn} estimator for each, of -log2 p(x) / {config.shape[0]} for standardised rows x."
    )
    return (
        f"Bits/dim is the mean over {mean} ± is its standard error over {config.unit}; the part of it that more draws "
        f"would remove is "
        f"{of_draws}. Log-determinants were {_estimated(metrics.estimator)}. The reconstruction error is "
        f"the largest |x - f^-1(f(x))| of any value of {count(metrics.reconstruction_images)} test {config.unit}. "
        f"Measured on {metrics.device} in {duration(metrics.evaluate_seconds)}."
    )


def _estimated(settings: Mapping[str, Any]) -> str:
    if settings.get("estimator") == "exact":
        return "exact"
    return "estimated with " + ", ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )


def _training(trained: TrainedModel, settings: Mapping[str, Any], metrics: Metrics, unit: str) -> Rows:
    after = NOT_AVAILABLE if trained.weights_step is None else count(trained.weights_step)
    task = settings.get("task")
    return [
        ("task", str(task["kind"]) if isinstance(task, dict) and "kind" in task else NOT_AVAILABLE),
        (f"training {unit} held out for validation", str(settings.get("validation_images", NOT_AVAILABLE))),
        ("steps", count(metrics.train_steps)),
        ("weights of step", after),
        ("time", duration(metrics.train_seconds)),
        ("device", metrics.train_device or NOT_AVAILABLE),
        ("settings", "`training` in `config.json`"),
    ]


def _limits(metrics: Metrics, licence: str) -> list[str]:
    found = [
        "One training was measured. By how much bits/dim differs between trainings is not part of its standard error.",
        f"Not measured for this card: how good samples look, other data than {metrics.dataset}, other devices and "
        "precisions than those named here. The analyses of the experiment's report have more.",
        "No claim of the paper follows from this model.",
    ]
    if licence == LICENCE_UNKNOWN:
        found.append("The licence of the weights is not stated.")
    return found


def _origin(trained: TrainedModel, metrics: Metrics, acf: str) -> Rows:
    return [
        ("recipe of the training", metrics.train_recipe or NOT_AVAILABLE),
        ("versions of the training", _versions(trained.versions)),
        ("recipe of the evaluation", metrics.recipe),
        ("versions of the evaluation", _versions(metrics.versions)),
        ("exported by", f"acf {acf}"),
    ]


def _versions(versions: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name} {number}" for name, number in (versions or {}).items()) or NOT_AVAILABLE
