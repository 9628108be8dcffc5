"""Reading how a stored model was trained, and making sure that it is the one its folder says."""

from acf.errors import ConfigError, DataError
from acf.reporting.result_files import read_result
from acf.reporting.schemas import TrainedModel
from acf.settings.config import model_config_from
from acf.settings.params import Run
from acf.stages.project import Project


def read_trained(project: Project, run: Run) -> TrainedModel:
    """Return the content of the config.json of a trained model.

    Raises:
        DataError: there is none.
        AcfError: it is damaged or of another run; names file, key and command.
        ConfigError: its section `model` has an unknown key or an impossible value.
    """
    path, command = project.training_record(run), f"acf train {run.options}"
    if not path.exists():
        raise DataError(f"{path} is missing: no trained model there; run: {command}")
    identity = run.identity(project.params.dataset(run.experiment))
    record = read_result(path, TrainedModel, identity, command)
    try:
        model_config_from(record.model)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; run: {command}") from None
    return record


def model_inputs(record: TrainedModel, weights: str) -> dict[str, str]:
    """Return what the recipe of a stage that measures a model says of it.

    The training is named beside the weights, since results say which training they are of: one that was made again by
    other code is another training, even if its weights are the same.

    Args:
        record: how the model was trained.
        weights: hash of its weights.
    """
    return {"weights": weights, "training": record.recipe or "unknown"}
