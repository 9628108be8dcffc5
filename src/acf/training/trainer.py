"""The training loop of one model, on CPU, CUDA or MPS."""

import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from acf.errors import AcfError, LostRankError, StoppedError
from acf.flows.build import build
from acf.flows.certificate import Certificate
from acf.flows.flow import Flow
from acf.runs.ranks import ALONE, Ranks
from acf.runs.reached import Reached, note_reached
from acf.runs.signals import StopSignals
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.alike import require_alike
from acf.training.average import MovingAverage, certified, certified_average
from acf.training.batches import Batches
from acf.training.best import Best
from acf.training.checkpoint import Checkpoints, usable
from acf.training.clock import Clock
from acf.training.display import TrainingProgress
from acf.training.finite import FiniteSteps, not_finite
from acf.training.gradient import StepGradient
from acf.training.history import History, Watch, nobody
from acf.training.interruption import T, unless_stopped
from acf.training.messages import advice, introduction, state_of_bar, validation_line
from acf.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from acf.training.random_state import random_state, restore_random_state
from acf.training.reader import BatchReader
from acf.training.schedule import row_is_due, validation_is_due
from acf.training.tasks.task import task_for
from acf.training.validation import means_and_errors, validation_measures

SECONDS_BETWEEN_CHECKPOINTS = 60.0
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
        ranks: the processes that share every batch. How many there are changes rounding only, and may change from one
            start to the next. The first one reads, writes and prints.
        watch: handed all complete rows of the history after every step.

    Attributes:
        flow: the flow with the weights of the last step.
        average: the moving average of its weights.
        history: the rows of `history.csv`.
        checkpoints: of this training.
        best: the averaged flow of the best validation, where `config.keep` asks for it.
        step: number of steps done.

    Raises:
        TrainingError: the checkpoint is of another version of torch.
        ConfigError: the task needs labels or classification heads, and there are none.
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
        ranks: Ranks = ALONE,
        watch: Watch = nobody,
    ) -> None:
        self.config = config
        self.batches = batches
        self._task = task_for(model, config, batches)
        self.device = device
        self.folder = folder
        self.title = title
        self.ranks = ranks
        self._watch = watch
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        self.flow: Flow = build(model).to(device)
        if device.type == "cuda":
            self.flow.use_cuda_graphs()
        self.average = MovingAverage(self.flow, config.ema_decay)
        self.optimiser = build_optimiser(self.flow, config)
        self.history = History()
        self.best: Best | None = None
        self.step = 0
        self._first_step = 0
        self.checkpoints = Checkpoints(folder)
        self._signals = StopSignals()
        self._clock = Clock()
        self._random_state = random_state(device)
        self._reader = BatchReader(batches, model.levels, ranks, device)
        self._gradient = StepGradient(self.flow, self._task, config, self._reader, ranks)
        self._restore_checkpoint()
        self._finite = FiniteSteps(self.step, device)
        self._states_before: dict[int, dict[str, Tensor]] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training, those of interrupted processes included and those of validation left out."""
        return self._clock.seconds

    @property
    def kept_step(self) -> int:
        """Number of steps after which the flow that `run` returns was the average."""
        return self.best.step if self.best else self.step

    def run(self) -> tuple[Flow, Certificate]:
        """Train to the last step, and return the averaged flow (`config.keep` says of which step) and its certificate.

        The flow is tightened and in evaluation mode. If an error is raised, the last checkpoint is kept. Training goes
        on while checkpoints cannot be written. A call after a signal to stop goes on where training stopped.

        Raises:
            TrainingError: a value is not finite; names the layer.
            StoppedError: a signal asked training to stop (`acf.runs.signals`). A validation, certificate or first step
                under way is left to the next start; the message names its step if the last could not be saved.
            NotContractiveError: a block cannot be proven contractive; names the layer.
            LostRankError: another process has ended.
        """
        restore_random_state(self._random_state, self.device)
        with self._signals, self._reader:
            try:
                with TrainingProgress(self.title, self.step, self.config.steps, self.ranks.first) as progress:
                    progress.print_line(
                        introduction(self.title, self.flow, self.config, self.device, self.ranks.number, self.step)
                    )
                    self._train(progress)
                return self._unless_stopped(self._kept_flow) or self._stop()
            except LostRankError:
                raise
            except AcfError as error:
                raise type(error)(f"{self.title}: {error}. {advice(error, self.folder)}") from None

    def _train(self, progress: TrainingProgress) -> None:
        self.flow.train()
        self._clock.start()
        self._first_step = self.step
        self._end_step(progress)  # a signal may have left out the validation
        while self.step < self.config.steps:
            rate = learning_rate(self.step, self.config)
            self._gradient_step(rate)
            self.average.update_parameters(self.flow)
            self.step += 1
            self._clock.count_step()
            has_row = row_is_due(self.step, self.config)
            if has_row or self.step % STEPS_BETWEEN_LOOKS == 0:
                self._require_finite_steps()
            if has_row:
                self._end_row(rate, progress)
            self._end_step(progress)

    def _end_step(self, progress: TrainingProgress) -> None:
        """Validate and write a checkpoint where they are due, stop if a signal asks for it, and show new rows."""
        validated = self._validation_is_missing() and self._validate(progress)
        old = self._clock.seconds_since_checkpoint() > SECONDS_BETWEEN_CHECKPOINTS
        # Read once: a signal from here on is for the next step. What one process is told, all do after the same step.
        due, stop = self.ranks.largest(validated or old, self._signals.received or 0)
        if due or stop:
            self._require_finite_steps()
            self._write_checkpoint(progress)
        if stop:
            self._stop(stop)
        with self._clock.left_out():
            self._watch(self.history.rows)

    def _stop(self, number: int | None = None) -> NoReturn:
        """End with the error of a signal, by default the one that this process has received."""
        number = number or self._signals.received
        assert number is not None
        stopped = f"stopped by {signal.Signals(number).name} after step {self.step}"
        raise StoppedError("; ".join(filter(None, [stopped, self.checkpoints.loss(self.step)])))

    def _unless_stopped(self, compute: Callable[[], T]) -> T | None:
        if self.ranks.number > 1:  # a process that left an exchange half-way would take the others down
            return compute()
        return unless_stopped(self._signals, self.average, self.device, compute)

    def _gradient_step(self, rate: float) -> None:
        """Change the weights by one step of the optimiser, then refresh the estimates of spectral norms.

        Nothing is read from the device. From a step on whose loss or gradient is not finite no step has an effect.
        """
        self._states_before[self.step] = random_state(self.device)
        if self.step == self._first_step:  # it may take long, and the checkpoint has all from before it
            measured, _ = self._unless_stopped(lambda: self._gradient.compute(self.step)) or self._stop()
        else:
            measured, _ = self._gradient.compute(self.step)
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.config.clip_norm)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.found_inf = self._finite.observe(self._task.loss(measured), norm)  # type: ignore[attr-defined]
        self.optimiser.step()
        self.flow.renormalise()
        self.history.observe(measured, norm)

    def _require_finite_steps(self) -> None:
        """Check that all steps were finite, and that weights and buffers are the same in all processes.

        Raises:
            TrainingError: names the first step that was not, and the layer; found by computing that step again with the
                same images and noise, as the weights are those from before it. Or names what differs.
        """
        step = self._finite.first_bad_step()
        if step is not None:
            restore_random_state(self._states_before[step], self.device)
            errors = self.ranks.of_all(not_finite(self.flow, step, self._gradient.compute(step)[1]))
            raise min(errors, key=lambda error: "the output of" not in str(error))
        self._states_before.clear()
        require_alike(self.flow, self.step, self.ranks)

    def _validation_is_missing(self) -> bool:
        return self.step > 0 and validation_is_due(self.step, self.config) and not self.history.is_validated()

    def _speed(self) -> str:
        return f"{self._clock.steps_per_second * self._gradient.images:.0f} {self.flow.config.unit}/s"

    def _end_row(self, rate: float, progress: TrainingProgress) -> None:
        """Append a row to the history and move the progress bar."""
        self._clock.end_row()
        self.history.end_row(self.step, self.seconds, self.step * self._gradient.images, rate)
        progress.update(self.step, state_of_bar(self.history.rows[-1], self._speed()))

    def _validate(self, progress: TrainingProgress) -> bool:
        """Write what the task measures of the averaged flow on held-out images into the last row, and print the row.

        Returns:
            Whether that was done; it is not if a signal asks training to stop.
        """
        values = self._unless_stopped(self._validation_values)
        if values is None:
            return False
        measured = means_and_errors(values, self.step)
        loss = float(self._task.loss(values).mean())
        if self.config.keep == "best" and (self.best is None or loss < self.best.loss):
            self.best = Best.of(self.average, self.step, loss)
        self.history.add_validation(measured)
        row = self.history.rows[-1]
        progress.print_line(validation_line(self.title, row, self.config.steps, self._speed()))
        self._clock.leave_out()
        return True

    def _validation_values(self) -> dict[str, Tensor]:
        flow, _ = certified_average(self.average)
        return validation_measures(flow, self._task, self.batches, self.config, self.ranks, self.device)

    def _kept_flow(self) -> tuple[Flow, Certificate]:
        best = self.best
        return certified(best.flow(self.flow.config, self.device)) if best else certified_average(self.average)

    def _write_checkpoint(self, progress: TrainingProgress) -> None:
        self._random_state = random_state(self.device)
        self._clock.checkpoint_written()
        if not self.ranks.first:
            return
        content = {
            "step": self.step,
            "seconds": self.seconds,
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history.state_dict(),
            "best": self.best and asdict(self.best),
            "random_state": self._random_state,
        }
        self.checkpoints.write(content, lambda line: progress.print_line(f"{self.title}: {line}"))
        if self.checkpoints.step == self.step:
            note_reached(self.folder, Reached(self.step, self.config.steps, self.history.last_bits_per_dim()))

    def _restore_checkpoint(self) -> None:
        with usable(self.title, self.folder):
            content = self.ranks.from_first(self.checkpoints.read() if self.ranks.first else None)
            if content is None:
                return
            self.step = content["step"]
            self._clock = Clock(content["seconds"])
            self.flow.load_state_dict(content["flow"])
            self.average.load_state_dict(content["average"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.history = History.from_state_dict(content["history"])
            self.best = content["best"] and Best(**content["best"])
            self._random_state = content["random_state"]
