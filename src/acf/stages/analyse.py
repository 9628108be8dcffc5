"""The stages that look at a trained model: one per analysis of the registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from acf.data import read_manifest
from acf.data.prepared.labels import kept_labels
from acf.data.prepared.manifest import SPLITS
from acf.data.prepared.seen import average_between
from acf.errors import ConfigError, NotContractiveError
from acf.flows.record import weights_hash
from acf.registry import ANALYSES, resolve
from acf.reporting.analysis_files import AnalysisFile, require_found
from acf.reporting.result_files import read_result, require_form
from acf.runs.device import describe_device
from acf.runs.leases import leased_device
from acf.runs.store import RunStore
from acf.settings.analysis_section import AnalysisSection
from acf.settings.config import model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.project import Project
from acf.stages.trained import model_inputs, read_trained

if TYPE_CHECKING:
    from acf.data.prepared.tensors import Images
    from acf.evaluation.analysis import Analysed, Found
    from acf.flows.flow import Flow


def analyse(name: str, run: Run, device: str = "auto", root: Path = Path(".")) -> None:
    """Write analyses/<experiment>/<variant>/seed<seed>/<name>.json, and <name>.png if the analysis has a picture.

    Raises:
        NotContractiveError: a block is not proven contractive; names it, and nothing is written. Or what has been
            proven is refuted by what was found, in this call or when the files were computed; they are in place and in
            the run store, since engines remove what a stage that failed has written.
        AcfError: bad configuration, missing data or model.
    """
    project = Project(root)
    computation(project, name, run, device).restore_or_compute(root)
    path = project.analyses(run) / f"{name}.json"
    identity = {"analysis": name, **run.identity(project.params.dataset(run.experiment))}
    if refuted := read_result(path, AnalysisFile, identity, f"acf {name} {run.options}").refuted:
        raise NotContractiveError(f"{run.variant}, seed {run.seed}: {refuted}; all numbers are in {path}")


def computation(
    project: Project, name: str, run: Run, device: str = "auto", weights: Callable[[Path], str] = weights_hash
) -> Computation:
    """Return the analysis `name` of the model of `run`, which is not begun.

    Args:
        project: where everything is.
        name: a key of `acf.registry.ANALYSES`.
        run: the model.
        device: as for `analyse`.
        weights: how the hash of the weights in a model's folder is had.

    Raises:
        AcfError: bad configuration, missing data or model.
    """
    settings = project.params.resolve(run.experiment, run.variant)
    section: AnalysisSection = getattr(settings.analyses, name)
    prepared = project.params.prepared(run.experiment)
    manifest = read_manifest(prepared, project.data)
    if not manifest.is_of_images:
        raise ConfigError(f"{name} looks at images, and data set {prepared} has vectors")
    others = {other: read_manifest(other, project.data) for other in section.other_datasets}
    model = project.model(run)
    record = read_trained(project, run)
    architecture = model_config_from(record.model)
    average = average_between(manifest.shape, architecture.shape)
    folder = project.analyses(run)
    identity = {"analysis": name, **run.identity(project.params.dataset(run.experiment))}

    def compute(store: RunStore) -> Outputs:
        import torch

        from acf.data import load as load_images
        from acf.data.prepared.labels import Labels, read_labels
        from acf.evaluation.analysis import Analysed
        from acf.flows.flow import certify
        from acf.flows.storage import load

        with leased_device(device) as place:
            flow = load(model, place)
            certify(flow).require()
            flow.eval().use_evaluation_estimator(settings.evaluation.log_det)
            train, test = (load_images(prepared, split, project.data, architecture.levels, average) for split in SPLITS)
            labels = read_labels(prepared, project.data) if section.reads_labels else Labels()
            analysed = Analysed(train, test, settings.evaluation, _others(project, others, flow, average), labels)
            print(f"{name} {run.folder.as_posix()}", flush=True)
            started = time.perf_counter()
            found = _measure(name, flow, analysed, section)
            seconds = time.perf_counter() - started
            content = {
                **identity,
                "settings": section.model_dump(mode="json"),
                "found": dict(found.content),
                "refuted": found.refuted,
                "seconds": round(seconds, 3),
                "device": describe_device(place),
                "train_recipe": record.recipe,
                "recipe": store.recipe,
                "versions": {"acf": version("acf"), "torch": torch.__version__},
            }
        return _outputs(name, folder, content, found)

    return Computation(
        stage=name,
        settings={
            **identity,
            "model": record.model,
            "section": section.model_dump(mode="json"),
            "evaluation": settings.evaluation.model_dump(mode="json"),
        },
        inputs={
            **{split: manifest.sha256[split] for split in SPLITS},
            **{f"{other}/test": found.sha256["test"] for other, found in others.items()},
            **({"labels": kept_labels(manifest)} if section.reads_labels else {}),
            **section.outside(architecture.shape),
            **model_inputs(record, weights(model)),
        },
        paths=[folder / output for output in section.output_names(name)],
        work=work(settings, name, architecture.shape),
        compute=compute,
    )


def _measure(name: str, flow: Flow, analysed: Analysed, section: AnalysisSection) -> Found:
    import torch

    measure: Callable[..., Found] = resolve(ANALYSES, name, "analysis")
    torch.manual_seed(analysed.evaluation.seed + 2**31)
    return measure(flow, analysed, section)


def _others(project: Project, others: Mapping[str, object], flow: Flow, average: int) -> dict[str, Images]:
    """Return the test images of other data sets, averaged as the flow's own; they must be of the flow's kind then."""
    from acf.data import load as load_images

    images = {other: load_images(other, "test", project.data, average=average) for other in others}
    for other, found in images.items():
        if tuple(found.shape[1:]) != flow.shape or found.levels % flow.config.grey_levels:
            size = "x".join(map(str, found.shape[1:]))
            expected = "x".join(map(str, flow.shape))
            raise ConfigError(
                f"the flow is of {expected} images with {flow.config.grey_levels} grey levels, and data set {other} "
                f"has {size} images with {found.levels}; name another one"
            )
    return {other: load_images(other, "test", project.data, flow.config.grey_levels, average) for other in others}


def _outputs(name: str, folder: Path, content: dict[str, object], found: Found) -> Outputs:
    path = folder / f"{name}.json"
    require_form(content, AnalysisFile, path)
    require_found(name, content["found"], path)
    files = {path.name: json_bytes(content)}
    if found.picture is not None:
        from acf.evaluation.grids import png

        files[f"{name}.png"] = png(found.picture, recipe=str(content["recipe"]))
    return Outputs(files)
