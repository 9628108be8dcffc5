"""The training loop of one model on CPU, CUDA or MPS."""

import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from acf.errors import AcfError, TrainingError
from acf.flows.build import build
from acf.flows.certificate import Certificate
from acf.flows.dequantise import bits_per_dim_of, dequantise
from acf.flows.flow import Flow, tighten
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.batches import Batches
from acf.training.checkpoint import random_state, read_checkpoint, restore_random_state, write_checkpoint
from acf.training.display import TrainingProgress
from acf.training.health import require_finite_gradients
from acf.training.history import History
from acf.training.optimiser import build_optimiser, learning_rate

SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Trainer:
    """State of one training run; `run` goes on from the last checkpoint in `folder` to the last step.

    Weights, moving average, optimiser, generators, position in the data and history are all in the checkpoint, so a
    run that was interrupted ends with the same bits as one that was not (on one machine).

    Args:
        model: what to build.
        config: how to train it.
        batches: the images.
        seed: of weights and noise.
        device: where to compute.
        folder: place of the checkpoint.
        title: name of the run, for the progress bar.
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
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        self.config, self.batches, self.device, self.folder, self.title = (
            config,
            batches,
            device,
            folder,
            title,
        )
        self.flow: Flow = build(model).to(device)
        self.average = AveragedModel(self.flow, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.optimiser = build_optimiser(self.flow, config)
        self.history = History()
        self.step, self.seconds = 0, 0.0
        self._stop: int | None = None
        self._random = random_state(device)
        self._restore()

    def run(self) -> tuple[Flow, Certificate]:
        """Train to the last step and return the averaged model, certified, with its certificate.

        Raises:
            TrainingError: a value that is not finite, naming the layer, or a signal to stop; the checkpoint is kept.
            NotContractiveError: a block that is not contractive, naming the layer; the checkpoint is kept.
        """
        restore_random_state(self._random, self.device)
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with TrainingProgress(self.title, self.step, self.config.steps) as progress:
                progress.say(self._introduction())
                self._loop(progress)
            return self._certified_average()
        except AcfError as error:
            raise type(error)(f"{self.title}: {error}. {self._advice()}") from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _loop(self, progress: TrainingProgress) -> None:
        config = self.config
        rows_every = max(1, config.validate_every // 10)
        started, saved = time.perf_counter() - self.seconds, time.perf_counter()
        images_before, row_started = self.step, time.perf_counter()
        self.flow.train()
        while self.step < config.steps:
            rate = learning_rate(self.step, config)
            self._train_step(rate)
            self.step += 1
            self.seconds = time.perf_counter() - started
            last = self.step == config.steps
            if self.step % rows_every == 0 or last:
                row = self.history.row(self.step, self.seconds, self.step * self._images_per_step, rate)
                speed = (self.step - images_before) * self._images_per_step / (time.perf_counter() - row_started)
                progress.update(self.step, row["train_bits_per_dim"], speed)
                if self.step % config.validate_every == 0 or last:
                    row |= self._validate()
                    progress.say(self._line(row, speed))
                    started = time.perf_counter() - self.seconds  # validation is not training time
                    self._save()
                    saved = time.perf_counter()
                images_before, row_started = self.step, time.perf_counter()
            if self._stop is not None or time.perf_counter() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
                saved = time.perf_counter()
            if self._stop is not None:
                name = signal.Signals(self._stop).name
                raise TrainingError(f"stopped by {name} after step {self.step}")

    @property
    def _images_per_step(self) -> int:
        return self.config.batch_size * self.config.accumulate

    def _train_step(self, rate: float) -> None:
        config = self.config
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for part in range(config.accumulate):
            start = (self.step * config.accumulate + part) * config.batch_size
            x = self._prepare(self.batches.take(start, config.batch_size))
            loss = bits_per_dim_of(self.flow.log_prob(x), self.flow.config).mean() / config.accumulate
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), config.clip_norm)
        value = float(norm)
        require_finite_gradients(self.flow, value if math.isfinite(float(total)) else math.nan, self.step, x)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.flow.renormalise()
        self.average.update_parameters(self.flow)
        self.history.observe(float(total), value)

    def _prepare(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        if self.config.horizontal_flips:
            flip = torch.rand(len(images), device=self.device) < 0.5
            images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
        return dequantise(images, self.flow.config.levels)

    def _certified_average(self) -> tuple[Flow, Certificate]:
        flow: Flow = self.average.module  # type: ignore[assignment]
        certificate = tighten(flow)
        certificate.require()
        return flow.eval(), certificate

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        """Bits/dim of the averaged model on held-out training images, with noise that is the same every time."""
        flow, _ = self._certified_average()
        flow.use_evaluation_estimator(self.config.log_det)
        state = random_state(self.device)
        torch.manual_seed(0)
        values = torch.cat(
            [
                bits_per_dim_of(flow.log_prob(dequantise(part.to(self.device), flow.config.levels)), flow.config)
                for part in self.batches.validation.split(self.config.batch_size)
            ]
        ).double()
        restore_random_state(state, self.device)
        flow.use_evaluation_estimator(flow.config.evaluation_log_det)
        if not torch.isfinite(values).all():
            raise TrainingError(f"step {self.step}: validation bits/dim is not finite")
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return {"validation_bits_per_dim": float(values.mean()), "validation_se": error}

    def _save(self) -> None:
        content = {
            "step": self.step,
            "seconds": self.seconds,
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": random_state(self.device),
            "rows": self.history.rows,
            "sums": self.history.sums,
        }
        write_checkpoint(self.folder, content)

    def _restore(self) -> None:
        content = read_checkpoint(self.folder)
        if content is None:
            return
        self.step, self.seconds = content["step"], content["seconds"]
        self.flow.load_state_dict(content["flow"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.history = History(content["rows"], content["sums"])
        self._random = content["random"]

    def _on_signal(self, number: int, _: object) -> None:
        self._stop = number

    def _introduction(self) -> str:
        parameters = sum(p.numel() for p in self.flow.parameters())
        log_det = self.config.log_det
        gradient = "Neumann series" if log_det.neumann_gradient else "derivative of the estimate itself"
        start = f"resumed after step {self.step}" if self.step else "from the start"
        return (
            f"{self.title}: {parameters:,} parameters on {self.device}, {start}; training bits/dim is an unbiased "
            f"estimate ({log_det.exact_terms} exact terms, {log_det.distribution} roulette), gradient: {gradient}"
        )

    def _line(self, row: dict[str, Any], speed: float) -> str:
        return (
            f"{self.title}: step {row['step']}/{self.config.steps}  train {row['train_bits_per_dim']:.3f}  "
            f"validation {row['validation_bits_per_dim']:.3f} ± {row['validation_se']:.3f} bits/dim  "
            f"{speed:.0f} images/s"
        )

    def _advice(self) -> str:
        if self._stop is not None:
            return "Run the same command again to go on"
        kept = read_checkpoint(self.folder)
        where = f"The last good checkpoint (step {kept['step']}) is kept in {self.folder}" if kept else ""
        return f"{where or 'There is no checkpoint yet'}; lower training.learning_rate or raise training.warmup_steps"
