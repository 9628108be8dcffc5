"""The training loop of one model, on CPU, CUDA or MPS."""

import math
import pickle
from pathlib import Path

import torch
from torch import Tensor

from acf.errors import AcfError, StoppedError, TrainingError
from acf.flows.build import build
from acf.flows.certificate import Certificate
from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.runs.reached import Reached, note_reached
from acf.runs.signals import StopSignals
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.average import MovingAverage, certified_average
from acf.training.batches import Batches, training_input
from acf.training.checkpoint import read_checkpoint, write_checkpoint
from acf.training.clock import Clock
from acf.training.display import TrainingProgress
from acf.training.finite import FiniteSteps, not_finite
from acf.training.history import History
from acf.training.messages import advice, introduction, validation_line
from acf.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from acf.training.random_state import random_state, restore_random_state
from acf.training.reader import BatchReader
from acf.training.validation import mean_and_standard_error, validation_bits_per_dim

SECONDS_BETWEEN_CHECKPOINTS = 60.0
ROWS_PER_VALIDATION = 10
STEPS_BETWEEN_LOOKS = 100
"""After so many steps at most the host looks whether all were finite."""


class Trainer:
    """One training run, which goes on from the checkpoint in `folder` if there is one.

    The checkpoint holds all that the run depends on, so a run that was interrupted and resumed ends with the same bits
    as one that was not, on one machine.

    Args:
        model: configuration of the flow.
        config: configuration of the training.
        batches: training and validation images.
        seed: of initial weights and noise.
        device: where to compute.
        folder: place of the checkpoint.
        title: name of the run, at the start of messages.

    Attributes:
        flow: the flow with the weights of the last step.
        average: the moving average of its weights.
        history: the rows of `history.csv`.
        step: number of steps done.

    Raises:
        TrainingError: the checkpoint is of another version of torch.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        batches: Batches,
        seed: int,
        device: torch.device,
        folder: Path,
        title: str,
    ) -> None:
        self.config = config
        self.batches = batches
        self.device = device
        self.folder = folder
        self.title = title
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        self.flow: Flow = build(model).to(device)
        if device.type == "cuda":
            self.flow.use_cuda_graphs()
        self.average = MovingAverage(self.flow, config.ema_decay)
        self.optimiser = build_optimiser(self.flow, config)
        self.history = History()
        self.step = 0
        self._clock = Clock()
        self._random_state = random_state(device)
        self._reader = BatchReader(batches, model.levels, device)
        self._restore_checkpoint()
        self._finite = FiniteSteps(self.step, device)
        self._states_before: dict[int, dict[str, Tensor]] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training, those of interrupted processes included and those of validation left out."""
        return self._clock.seconds

    def run(self) -> tuple[Flow, Certificate]:
        """Train to the last step, and return the averaged flow and its certificate.

        The flow is tightened and in evaluation mode. If an error is raised, the last checkpoint is kept. A call after
        a signal to stop goes on where training stopped.

        Raises:
            TrainingError: a value is not finite; names the layer.
            StoppedError: a signal asked training to stop (`acf.runs.signals`), and the step's checkpoint is written.
            UnwritableError: a checkpoint cannot be written; names the file.
            NotContractiveError: a block cannot be proven contractive; names the layer.
        """
        restore_random_state(self._random_state, self.device)
        with StopSignals() as signals, self._reader:
            try:
                with TrainingProgress(self.title, self.step, self.config.steps) as progress:
                    progress.print_line(introduction(self.title, self.flow, self.config, self.device, self.step))
                    self._train(progress, signals)
                return certified_average(self.average)
            except AcfError as error:
                raise type(error)(f"{self.title}: {error}. {advice(error, self.folder)}") from None

    def _train(self, progress: TrainingProgress, signals: StopSignals) -> None:
        self.flow.train()
        self._clock.start()
        while self.step < self.config.steps:
            rate = learning_rate(self.step, self.config)
            self._gradient_step(rate)
            self.average.update_parameters(self.flow)
            self.step += 1
            self._clock.count_step()
            if self._row_is_due() or self.step % STEPS_BETWEEN_LOOKS == 0:
                self._require_finite_steps()
            if self._row_is_due():
                self._end_row(rate, progress)
            if self._validation_is_due():
                self._validate(progress)
            stop = signals.received  # read once: a signal from here on is for the next step
            if self._checkpoint_is_due() or stop:
                self._require_finite_steps()
                self._write_checkpoint()
            if stop:
                raise StoppedError(f"stopped by {stop.name} after step {self.step}")

    def _gradient_step(self, rate: float) -> None:
        """Change the weights by one step of the optimiser, then refresh the estimates of spectral norms.

        Nothing is read from the device. From a step on whose loss or gradient is not finite no step has an effect.
        """
        self._states_before[self.step] = random_state(self.device)
        bits_per_dim, _ = self._loss_and_gradient(self.step)
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.config.clip_norm)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.found_inf = self._finite.observe(bits_per_dim, norm)  # type: ignore[attr-defined]
        self.optimiser.step()
        self.flow.renormalise()
        self.history.observe(bits_per_dim, norm)

    def _loss_and_gradient(self, step: int) -> tuple[Tensor, list[Tensor]]:
        """Compute the gradient of a step, and return its loss in bits/dim and its batches."""
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        batches = []
        for index in range(self.config.accumulate):
            x = self._input(step, index)
            batches.append(x)
            log_prob = self.flow.log_prob_of_pixels(x)
            loss = bits_per_dim_of(log_prob, self.flow.config).mean() / self.config.accumulate
            loss.backward()
            total += loss.detach()
        return total, batches

    def _input(self, step: int, index: int) -> Tensor:
        """Return batch number `index` of the `accumulate` ones of a step, (B, C, H, W) in [0, 1)."""
        position = (step * self.config.accumulate + index) * self.config.batch_size
        images = self._reader.read(position, self.config.batch_size)
        return training_input(images, self.flow.config.levels, self.config.horizontal_flips)

    def _require_finite_steps(self) -> None:
        """Check that all steps were finite.

        Raises:
            TrainingError: names the first step that was not, and the layer; found by computing that step again with the
                same images and noise, as the weights are those from before it.
        """
        step = self._finite.first_bad_step()
        if step is not None:
            restore_random_state(self._states_before[step], self.device)
            raise not_finite(self.flow, step, self._loss_and_gradient(step)[1])
        self._states_before.clear()

    def _row_is_due(self) -> bool:
        steps_per_row = max(1, self.config.validate_every // ROWS_PER_VALIDATION)
        return self.step % steps_per_row == 0 or self._validation_is_due()

    def _validation_is_due(self) -> bool:
        return self.step % self.config.validate_every == 0 or self.step == self.config.steps

    def _checkpoint_is_due(self) -> bool:
        old = self._clock.seconds_since_checkpoint() > SECONDS_BETWEEN_CHECKPOINTS
        return self._validation_is_due() or old

    def _images_per_step(self) -> int:
        return self.config.batch_size * self.config.accumulate

    def _images_per_second(self) -> float:
        return self._clock.steps_per_second * self._images_per_step()

    def _end_row(self, rate: float, progress: TrainingProgress) -> None:
        """Append a row to the history and move the progress bar."""
        self._clock.end_row()
        self.history.end_row(self.step, self.seconds, self.step * self._images_per_step(), rate)
        progress.update(self.step, self.history.rows[-1]["train_bits_per_dim"], self._images_per_second())

    def _validate(self, progress: TrainingProgress) -> None:
        """Write bits/dim of the averaged flow on the held-out images into the last row, and print the row."""
        flow, _ = certified_average(self.average)
        values = validation_bits_per_dim(flow, self.batches.validation, self.config, self.device)
        mean, error = mean_and_standard_error(values)
        if not math.isfinite(mean):
            raise TrainingError(f"step {self.step}: validation bits/dim is not finite")
        self.history.add_validation(mean, error)
        row = self.history.rows[-1]
        progress.print_line(validation_line(self.title, row, self.config.steps, self._images_per_second()))
        self._clock.leave_out()

    def _write_checkpoint(self) -> None:
        self._random_state = random_state(self.device)
        content = {
            "step": self.step,
            "seconds": self.seconds,
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history.state_dict(),
            "random_state": self._random_state,
        }
        write_checkpoint(self.folder, content)
        note_reached(self.folder, Reached(self.step, self.config.steps, self.history.last_bits_per_dim()))
        self._clock.checkpoint_written()

    def _restore_checkpoint(self) -> None:
        try:
            content = read_checkpoint(self.folder)
            if content is None:
                return
            self.step = content["step"]
            self._clock = Clock(content["seconds"])
            self.flow.load_state_dict(content["flow"])
            self.average.load_state_dict(content["average"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.history = History.from_state_dict(content["history"])
            self._random_state = content["random_state"]
        except (pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{self.title}: the checkpoint in {self.folder} is whole but torch {torch.__version__} cannot use it "
                f"({error!r}); go on with the version that wrote it, or delete it to start again"
            ) from None
