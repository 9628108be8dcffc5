"""Files of the stages that look at a trained model: of which training they are, and why one is absent."""

from pathlib import Path
from typing import TypeVar

from acf.errors import AcfError
from acf.reporting.result_files import read_result
from acf.reporting.results import Absent
from acf.reporting.schemas import OfModel, TrainedModel
from acf.settings.params import Run
from acf.stages.project import Project

Schema = TypeVar("Schema", bound=OfModel)


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
    """
    of_run, command = run.identity(project.params.dataset(run.experiment)), f"acf {stage} {run.options}"
    found = read_result(path, schema, {**identity, **of_run}, command)
    model = read_result(project.training_record(run), TrainedModel, of_run, f"acf train {run.options}")
    if found.train_recipe != model.recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    return found, model


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
    return Absent(run, f"damaged: {error}")
