"""The command `acf toy`: a flow on one of the densities of the plane, in about a minute."""

from __future__ import annotations

import csv
import io
import json
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from acf.data.toy_densities import TOYS, toy_density
from acf.data.toy_density import HALF_WIDTH, ToyDensity
from acf.errors import ConfigError
from acf.reporting.style import seaborn_module
from acf.runs.device import describe_device
from acf.runs.files import writing
from acf.runs.folders import replace_folder
from acf.runs.leases import leased_device
from acf.runs.threads import paying_threads
from acf.settings.config import ModelConfig, TrainingConfig, model_config_from
from acf.settings.training_config import MuonConfig

if TYPE_CHECKING:
    import torch

    from acf.evaluation.toys import MeasuredToy, Panels
    from acf.flows.flow import Flow

ALL = "all"
METRICS = "metrics.json"
STEPS = 600
"""About a minute on one core."""
TRAINED_BY = {"steps", "batch_size", "optimiser", "learning_rate", "muon", "schedule", "warmup_steps", "ema_decay"}
"""Settings of training that have an effect here."""


def toy_names(name: str | None, conditional: bool = False) -> list[str]:
    """Return the toys that `name` stands for; all conditional ones are those of several parts.

    Raises:
        ConfigError: it stands for none, or is None.
    """
    if name is None:
        raise ConfigError(f"say which toy: {', '.join(TOYS)}, or {ALL}")
    if name == ALL:
        return [toy for toy in TOYS if not conditional or toy_density(toy).parts > 1]
    toy_density(name)
    return [name]


def model_settings(toy: ToyDensity, conditional: bool) -> ModelConfig:
    """Return the architecture of every toy.

    Raises:
        ConfigError: a condition is asked for, and the density has one part.
    """
    if conditional and toy.parts == 1:
        raise ConfigError("this toy has one part, so there is nothing to make its density conditional on")
    exact = {"estimator": "exact"}
    condition = {"condition": {"classes": toy.parts}} if conditional else {}
    return model_config_from(
        {
            **{"shape": (2,), "blocks": [8], "idim": 64, "kernels": [1, 1, 1, 1], "fc_blocks": 0},
            **{"activation": "clipswish", "coefficient": 0.99},
            **{"training_log_det": exact, "evaluation_log_det": exact, **condition},
        }
    )


def training_settings(steps: int) -> TrainingConfig:
    """Return how every toy is trained."""
    return TrainingConfig(
        steps=steps,
        batch_size=128,
        optimiser="muon",
        learning_rate=0.1,
        muon=MuonConfig(learning_rate=0.2),
        schedule="cosine",
        warmup_steps=min(30, steps),
        ema_decay=0.97,
    )


def toy(
    name: str,
    steps: int = STEPS,
    seed: int = 0,
    device: str = "auto",
    to: Path = Path("toys"),
    *,
    conditional: bool = False,
) -> None:
    """Train a flow on the toy `name` and write to/<name>/{density.png,samples.csv,metrics.json,model/}.

    The folder is replaced as a whole when everything is there; until then nothing is written. The same seed has the
    same result on the same machine. With `conditional` it is a flow of p(x | c), c the part, in to/<name>-conditional.

    Raises:
        ConfigError: there is no such toy, its density has one part and is to be conditional, or the folder holds
            something else.
        NotContractiveError: the flow cannot be proven contractive.
        UnwritableError: the folder cannot be written.
    """
    density = toy_density(name)
    config, training = model_settings(density, conditional), training_settings(steps)
    folder = to / (f"{name}-conditional" if conditional else name)
    seaborn_module()  # so that it is missed before a minute of training
    _require_own(folder)
    print(f"toy {folder.name}: {steps} steps", flush=True)
    with leased_device(device) as place, paying_threads(2 * training.batch_size * config.idim):
        flow, measured, numbers = _computed(density, config, training, seed, place)
    content = {"toy": name, "conditional": conditional, "seed": seed, "steps": steps, **measured.content, **numbers}
    replace_folder(folder, _files(flow, measured, content), to / f".{folder.name}.lock")
    _show(content, folder)


def _computed(
    density: ToyDensity, config: ModelConfig, training: TrainingConfig, seed: int, place: torch.device
) -> tuple[Flow, MeasuredToy, dict[str, Any]]:
    """Return the trained flow, what was measured of it, and what it has taken."""
    import torch

    from acf.evaluation.toys import measure_toy
    from acf.flows.build import build
    from acf.training.density_fit import fit_density

    started, cpu_started = perf_counter(), process_time()
    conditional = config.condition.is_given
    torch.manual_seed(seed)
    points = torch.Generator("cpu").manual_seed(seed)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, labels = density.sample(count, points)
        return x.float().to(place), labels.to(place) if conditional else None

    def report(done: int, nats: float, seconds: float) -> None:
        print(f"  step {done}, log-likelihood {-nats:.3f} nats, {seconds:.0f} s", flush=True)

    flow, certificate = fit_density(build(config).to(place), draw, training, report)
    seconds, cpu_seconds = perf_counter() - started, process_time() - cpu_started
    measured = measure_toy(flow, density, conditional, torch.Generator("cpu").manual_seed(seed + 2**31))
    return (
        flow,
        measured,
        {
            "certificate": {"worst": certificate.worst, "worst_block": certificate.worst_block},
            "parameters": sum(parameter.numel() for parameter in flow.parameters()),
            "training": training.model_dump(mode="json", include=TRAINED_BY),
            "train_seconds": round(seconds, 1),
            "train_cpu_seconds": round(cpu_seconds, 1),
            "seconds": round(perf_counter() - started, 1),
            "device": describe_device(place),
            "versions": {"acf": version("acf"), "torch": torch.__version__},
        },
    )


NAMES = {"density.png", "samples.csv", METRICS, "model"}
"""What a toy's folder has."""


def _require_own(folder: Path) -> None:
    own = folder.is_dir() and {path.name for path in folder.iterdir()} <= NAMES
    if folder.exists() and not own:
        raise ConfigError(f"{folder} is no toy or holds other files, which would be lost; name another folder by --to")
    with writing(folder.parent):  # before a minute of training
        folder.parent.mkdir(parents=True, exist_ok=True)


def _files(flow: Flow, measured: MeasuredToy, content: dict[str, Any]) -> dict[str, bytes]:
    from acf.flows.storage import serialise
    from acf.reporting.toy_picture import Row, toy_picture

    rows = [
        Row(
            "" if panels.label is None else f"c = {panels.label}",
            panels.data.numpy(),
            panels.density.numpy(),
            panels.samples.numpy(),
            HALF_WIDTH,
        )
        for panels in measured.panels
    ]
    record = {key: content[key] for key in ("toy", "conditional", "seed", "versions")}
    return {
        "density.png": toy_picture(rows),
        "samples.csv": _table(measured.panels),
        METRICS: (json.dumps(content, indent=2) + "\n").encode(),
        **{f"model/{name}": file for name, file in serialise(flow, record).items()},
    }


def _table(panels: list[Panels]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labelled = panels[0].label is not None
    writer.writerow(["x", "y", *(["label"] if labelled else [])])
    for one in panels:
        for x, y in one.samples.tolist():
            writer.writerow([f"{x:.5f}", f"{y:.5f}", *([one.label] if labelled else [])])
    return text.getvalue().encode()


def _show(content: dict[str, Any], folder: Path) -> None:
    found, gap = content["log_likelihood"], content["divergence"]
    given = "given the part, " if content["conditional"] else ""
    print(
        f"  log-likelihood of {found['points']} new points, {given}{found['mean']:.4f} ± {found['se']:.4f} nats; of "
        f"the density itself {-content['entropy']:.4f}; divergence from it {gap['mean']:.4f} ± {gap['se']:.4f}\n"
        f"  the density adds up to {content['integral']:.4f}; certificate {content['certificate']['worst']:.4f}; "
        f"{content['seconds']:.0f} s\n"
        f"  wrote {folder}: density.png, samples.csv, metrics.json, model/"
    )
