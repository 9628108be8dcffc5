"""What `gpu.py` measures: training steps, modes of precision, and the inverse and likelihood."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any
from unittest.mock import patch

import published_code
import torch
from gpu_measure import WARM, WARM_WITH_RECORDINGS, free, measure_step, operations_of, precision, profile_step, seed
from gpu_variants import Variant, with_graphs
from published_steps import Step, our_step, synchronise, take, their_step
from torch import Tensor

import acf
from acf.flows import fixed_point, residual
from acf.settings.config import EvaluationLogDetConfig

KINDS: dict[str, dict[str, Any]] = {
    "resflow": {},
    **{f"acf-{kind}": {"attention": {"kind": kind}} for kind in ("l2", "dot", "sinkhorn")},
}
"""As the variants of `params.yaml`; heads and places of attention are its defaults for the paper's sizes."""
ATTENTION = {"heads": 4, "every": 3}
CERTIFICATE_SECONDS = 5.0
"""A certificate that takes longer is computed for the first mode only."""
MODES: dict[str, dict[str, bool]] = {
    "float32": {},
    "float32, deterministic": {"deterministic": True},
    "float32, searched": {"benchmark": True},
    "TF32": {"tf32": True},
    "bfloat16 products": {"bfloat16": True},
    "TF32, graphs": {"tf32": True, "graphs": True},
    "TF32, bfloat16 products": {"tf32": True, "bfloat16": True},
    "TF32, bfloat16 products, graphs": {"tf32": True, "bfloat16": True, "graphs": True},
}
PUBLISHED_EVALUATION = {"exact_terms": 20, "distribution": "poisson", "parameter": 2.0, "probe": "gaussian"}
PROJECT_EVALUATION = {"exact_terms": 6, "distribution": "geometric", "parameter": 0.4, "probes": 4}


def settings_of(shape: tuple[int, int, int], kind: str, size: dict[str, Any]) -> dict[str, Any]:
    """Settings of a flow of this kind."""
    extra = KINDS[kind]
    return {"shape": shape, **size, **({"attention": {**ATTENTION, **extra["attention"]}} if extra else {})}


def fresh(settings: dict[str, Any], device: torch.device) -> acf.Flow:
    """A flow with weights from `SEED`, in training mode: a copy, as making one at the paper's size takes seconds."""
    return copy.deepcopy(_made(json.dumps(settings))).to(device).train()


@lru_cache(maxsize=2)
def _made(settings: str) -> acf.Flow:
    seed()
    return acf.build(json.loads(settings))


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Result of a measurement, or why there is none: what fails costs its own row only."""
    try:
        return measure()
    except torch.cuda.OutOfMemoryError:
        return {"error": "out of memory"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def training_rows(
    settings: dict[str, Any], x: Tensor, variants: dict[str, Variant], resflow: Any, seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, figures) of every variant of one flow, and of the published code where `resflow` is given.

    All variants start from the same weights and noise, so that their first losses agree. Operations are counted of the
    variant "ours" and divided by the seconds of the same step.
    """
    makers: dict[str, Callable[[], Step]] = {
        name: partial(_variant_step, variant, settings, x.device) for name, variant in variants.items()
    }
    if resflow is not None:
        makers["published"] = lambda: their_step(published_code.Published(resflow, fresh(settings, x.device)))
    for name, make in makers.items():
        free(x.device)
        yield name, attempt(partial(_training_row, name, make, x, seconds))


def _variant_step(variant: Variant, settings: dict[str, Any], device: torch.device) -> Step:
    return variant(fresh(settings, device))


def _training_row(name: str, make: Callable[[], Step], x: Tensor, seconds: float) -> dict[str, Any]:
    step = make()
    row = measure_step(step, x, seconds, WARM_WITH_RECORDINGS if name == "graphs" else WARM)
    row |= attempt(partial(profile_step, step, x))
    if name == "ours":
        row |= attempt(lambda: {"operations": operations_of(step, x)})
        if "operations" in row:
            row["tflops"] = row["operations"] / (row["ms"] * 1e-3) / 1e12
    return row


def precision_rows(settings: dict[str, Any], x: Tensor, resflow: Any, seconds: float) -> Iterator[tuple[str, Any]]:
    """Yield (mode, figures): speed, error against float32 on the same weights and noise, and the certificate.

    The certificate is that of the weights after the steps, computed in the mode. "Searched" lets cuDNN try algorithms
    for every shape. The published code is measured in float32 and TF32.
    """
    exact: list[Tensor] | None = None
    quick = True
    for mode, flags in MODES.items():
        free(x.device)
        own = {**settings, "training_log_det": {"bfloat16": flags.get("bfloat16", False)}}
        switches = {key: value for key, value in flags.items() if key not in ("bfloat16", "graphs")}
        make = with_graphs if "graphs" in flags else our_step
        with precision(**switches):
            values = attempt(lambda own=own: {"values": _loss_and_gradient(fresh(own, x.device), x)})
            exact = values.get("values") if exact is None else exact
            row = attempt(
                lambda own=own, make=make, quick=quick: _precision_row(make, fresh(own, x.device), x, seconds, quick)
            )
        quick = row.get("certificate_seconds", 0.0) < CERTIFICATE_SECONDS
        if exact is not None and "values" in values:
            loss, gradient = values["values"]
            row["loss_change"] = abs(float(loss - exact[0]))
            row["gradient_change"] = float((gradient - exact[1]).norm() / exact[1].norm())
        yield mode, row
        if resflow is not None and set(flags) <= {"tf32"}:
            free(x.device)
            with precision(**switches):
                flow = fresh(settings, x.device)
                step = their_step(published_code.Published(resflow, flow))
                yield f"published, {mode}", attempt(partial(measure_step, step, x, seconds))


def _loss_and_gradient(flow: acf.Flow, x: Tensor) -> list[Tensor]:
    """Bits/dim of the batch and its gradient in all parameters, after a first batch has set the scales."""
    with torch.no_grad():
        flow.log_prob(x)
    seed(1)
    loss = published_code.bits_per_dim(flow.log_prob(x), flow).mean()
    loss.backward()
    return [loss.detach(), torch.cat([p.grad.flatten() for p in flow.parameters() if p.grad is not None])]


def _precision_row(make: Variant, flow: acf.Flow, x: Tensor, seconds: float, certify: bool) -> dict[str, Any]:
    row = measure_step(make(flow), x, seconds, WARM_WITH_RECORDINGS if make is with_graphs else WARM)
    if certify:
        timed = _timed(lambda: {"worst": acf.certify(flow).worst}, x)
        row |= {"certificate": timed["worst"], "certificate_seconds": timed["seconds"]}
    return row


def use_rows(settings: dict[str, Any], images: Tensor, resflow: Any, steps: int, samples: int) -> Iterator[Any]:
    """Yield (name, figures) of the certificate, sampling and the likelihood of images, after some training steps."""
    device, batch = images.device, min(len(images), 64)
    flow = fresh(settings, device)
    step = our_step(flow)
    for i in range(steps):
        start = i * batch % (len(images) - batch + 1)
        take(step, images[start : start + batch])
    published = None
    if resflow is not None:
        published = published_code.Published(resflow, flow)
        yield "agreement", {"difference": published_code.largest_difference(published, flow, images[:batch])}
        published.net.eval()
    flow.eval()
    yield "certify", attempt(lambda: _timed(lambda: {"worst": acf.certify(flow).worst}, images))
    yield "tighten", attempt(lambda: _timed(lambda: {"worst": acf.tighten(flow).worst}, images))
    z = torch.randn(samples, images[0].numel(), device=device)
    attempt(lambda: _evaluations(flow.invert(z[:1])))  # computes the certificate that the inverse asks for, once
    yield "inverse", attempt(lambda: _timed(lambda: _evaluations(flow.invert(z)), images))
    plain = partial(fixed_point.invert, memory=0)
    with patch.object(residual, "invert", plain, create=True):
        yield "inverse, plain iteration", attempt(lambda: _timed(lambda: _evaluations(flow.invert(z)), images))
    if published is not None:
        inverse = partial(published.net, z, inverse=True)
        yield "inverse, published", attempt(lambda: _timed(lambda: _nothing(inverse()), images))
        yield "likelihood, published", attempt(lambda: _timed(lambda: _likelihood(published.log_prob, images), images))
    for name, estimator in (("published estimator", PUBLISHED_EVALUATION), ("own estimator", PROJECT_EVALUATION)):
        flow.use_evaluation_estimator(EvaluationLogDetConfig(**estimator))
        yield f"likelihood, {name}", attempt(lambda: _timed(lambda: _likelihood(flow.log_prob, images), images))


def _timed(call: Callable[[], dict[str, Any]], x: Tensor) -> dict[str, Any]:
    synchronise(x)
    start = time.perf_counter()
    found = call()
    synchronise(x)
    return {"seconds": time.perf_counter() - start, **found}


def _nothing(_: object) -> dict[str, Any]:
    return {}


def _evaluations(inversion: Any) -> dict[str, Any]:
    """Evaluations of a branch per sample, mean and largest over samples and blocks."""
    counts = torch.stack([count.double() for count in inversion.evaluations.values()])
    return {"mean_evaluations": float(counts.mean()), "most_evaluations": float(counts.max())}


@torch.no_grad()
def _likelihood(log_prob: Callable[[Tensor], Tensor], images: Tensor, batch: int = 250) -> dict[str, Any]:
    values = torch.cat([log_prob(part).detach() for part in images.split(batch)])
    return {"images": len(images), "mean_nats": float(values.mean())}
