"""Files of the stages that look at a trained model: of which training they are, and why one is absent."""

from pathlib import Path
from typing import NamedTuple, TypeVar

from acf.data.prepared.seen import averaged_shape
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.registered import dataset_source
from acf.errors import AcfError
from acf.reporting.result_files import read_result
from acf.reporting.results import Absent
from acf.reporting.schemas import Metrics, OfModel, TrainedModel
from acf.settings.params import Run
from acf.stages.project import Project

Schema = TypeVar("Schema", bound=OfModel)


class OtherImagesError(AcfError):
    """A model was trained on images of another size or of other grey levels than its experiment now has."""


class Form(NamedTuple):
    """Shape (C, H, W) and number of grey levels of images."""

    shape: tuple[int, ...]
    levels: int


def seen_form(project: Project, experiment: str) -> Form | None:
    """Return the form of the images that models of an experiment see, by params.yaml; None for a table."""
    seen, source = project.params.seen(experiment), dataset_source(project.params.prepared(experiment))
    if not isinstance(source, ImageDataset):
        return None
    return Form(averaged_shape(source.shape, seen.average), seen.levels or source.levels)


def read_measured(
    project: Project, run: Run, stage: str, path: Path, schema: type[Schema], **identity: str
) -> tuple[Schema, TrainedModel]:
    """Return a file that `stage` has written of the model of `run`, and how the model was trained.

    Args:
        project: where the model is.
        run: the model.
        stage: name of the stage.
        path: the file.
        schema: what it has to hold.
        identity: what else follows from its place, beside the run and its data set.

    Raises:
        AcfError: one of the two files is missing or damaged or of another run, or the model is of another training.
        OtherImagesError: the model was trained on other images than params.yaml gives its experiment.
    """
    of_run, command = run.identity(project.params.dataset(run.experiment)), f"acf {stage} {run.options}"
    found = read_result(path, schema, {**identity, **of_run}, command)
    model = read_result(project.training_record(run), TrainedModel, of_run, f"acf train {run.options}")
    if found.train_recipe != model.recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    _check_form(project, run, model)
    return found, model


def read_metrics(project: Project, run: Run) -> tuple[Metrics, TrainedModel]:
    """Return what was measured of the model of `run`, and how it was trained.

    Seconds and device of the training are those of its own record: where a training was repeated and came to the same
    weights, it took other seconds, and its evaluation is not made anew.

    Raises:
        AcfError: as `read_measured`.
        OtherImagesError: as `read_measured`.
    """
    metrics, model = read_measured(project, run, "evaluate", project.metrics(run), Metrics)
    if model.train_seconds is not None:
        metrics = metrics.model_copy(update={"train_seconds": model.train_seconds, "train_device": model.device})
    return metrics, model


def why_absent(project: Project, run: Run, stage: str, done: str, written: bool, error: AcfError) -> Absent:
    """Return why a report has to do without what `stage` writes of the model of `run`.

    Args:
        project: where the model is.
        run: the model.
        stage: name of the stage.
        done: what it does to a model, as in "not sampled".
        written: whether anything of it is there.
        error: what is wrong with that.
    """
    if not project.training_record(run).is_file():
        return Absent(run, f"not trained; run: acf train {run.options}")
    if not written:
        return Absent(run, f"not {done}; run: acf {stage} {run.options}")
    return absent_for(run, error)


def absent_for(run: Run, error: AcfError) -> Absent:
    """Return why a report has to do without files that are there."""
    return Absent(run, str(error) if isinstance(error, OtherImagesError) else f"damaged: {error}")


def _check_form(project: Project, run: Run, model: TrainedModel) -> None:
    form = seen_form(project, run.experiment)
    shape, levels = model.model.get("shape"), model.model.get("levels")
    if form is None or shape is None or levels is None:
        return
    if (list(shape), levels) != (list(form.shape), form.levels):
        raise OtherImagesError(f"trained on other images; run: acf train {run.options}")
