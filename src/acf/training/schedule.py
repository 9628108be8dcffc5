"""After which steps of a training its history gets a row, and a validation takes place."""

from acf.settings.config import TrainingConfig

ROWS_PER_VALIDATION = 10


def row_is_due(step: int, config: TrainingConfig) -> bool:
    """Whether the history gets a row after `step` steps; it does with every validation."""
    steps_per_row = max(1, config.validate_every // ROWS_PER_VALIDATION)
    return step % steps_per_row == 0 or validation_is_due(step, config)


def validation_is_due(step: int, config: TrainingConfig) -> bool:
    """Whether there is a validation after `step` steps, as after the last."""
    return step % config.validate_every == 0 or step == config.steps
