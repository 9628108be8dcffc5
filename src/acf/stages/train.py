"""The stage `train`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acf.data import read_manifest
from acf.data.prepared.seen import averaged_shape
from acf.errors import ConfigError, UnwritableError
from acf.flows.record import CONFIG, WEIGHTS
from acf.runs.device import describe_device, select_device
from acf.runs.files import write_atomically
from acf.runs.launch import launch
from acf.runs.leases import leased_device, leased_devices
from acf.runs.ranks import ALONE, Place, Ranks, ranks_of_environment
from acf.runs.store import RunStore
from acf.runs.threads import paying_threads
from acf.settings.config import ModelConfig, TrainingConfig, model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs
from acf.stages.labelled import labels_input, number_of_classes, split_labels
from acf.stages.live import NOT_LIVE, Live
from acf.stages.project import HISTORY, Project
from acf.training.live.curves import LiveCurves, require_sinks

if TYPE_CHECKING:
    import torch

    from acf.training.batches import Batches

THREADS = "threads.txt"
"""The numbers of threads and processes that the last start of a training had, beside its checkpoints."""
NOTHING_LEFT = "finished"
"""What the first process of several tells the others, in place of the run's folder, once the result is there."""


def train(
    experiment: str,
    variant: str,
    seed: int,
    device: str = "auto",
    root: Path = Path("."),
    processes: int = 1,
    live: Live = NOT_LIVE,
) -> None:
    """Train one model and write it to models/<experiment>/<variant>/seed<seed>.

    A finished run of the same recipe is restored without training, an interrupted one resumed. Several processes share
    every batch; how many does not change the result, beyond the rounding of sums, and may change from start to start.
    They are started by `torchrun` or `srun`, or else by this function.

    Args:
        experiment: name of the experiment,
        variant: of the variant,
        seed: and seed of the run.
        device: where to compute; see `acf.runs.device.select_device`.
        root: the project's top folder.
        processes: number of processes to start, each on a device of its own, unless something else has started several.
        live: where curves are shown while the model trains; the result does not depend on it.

    Raises:
        ConfigError: curves cannot be shown there.
        AcfError: bad configuration, missing data, values that are not finite, a block that is not contractive; or
            another process has ended.
        SystemExit: one of the processes that were started has failed, and has said why.
    """
    project, run = Project(root), Run(experiment, variant, seed)
    place = Place.of_environment()
    if place is None or place.rank == 0:
        require_sinks(live.sinks)
    if processes > 1 and place is None:
        if not computation(project, run, device).restore(root):
            _launch([*run.options.split(), *live.options], device, processes, root)
        return
    with ranks_of_environment(_device_of_rank(device)) as ranks:
        training = computation(project, run, device, ranks, live)
        if ranks.first:
            training.restore_or_compute(root)
            ranks.from_first(NOTHING_LEFT)
        elif (folder := ranks.from_first()) != NOTHING_LEFT:
            with paying_threads(training.work):
                training.compute(RunStore(folder))
            ranks.from_first()


def _launch(options: Sequence[str], device: str, processes: int, root: Path) -> None:
    with leased_devices(device, processes) as devices:
        code = launch(["train", *options], [str(place) for place in devices], root)
    if code:
        raise SystemExit(code)


def _device_of_rank(name: str) -> "torch.device | None":
    """Return the device of this process among several, None if it is the only one."""
    place = Place.of_environment()
    if place is None or place.number == 1:
        return None
    device = select_device(name)
    if device.type == "cuda" and device.index is None:
        import torch

        device = select_device(f"cuda:{place.local_rank % torch.cuda.device_count()}")
    return device


def computation(
    project: Project, run: Run, device: str = "auto", ranks: Ranks = ALONE, live: Live = NOT_LIVE
) -> Computation:
    """Return the training of `run`, which is not begun.

    Args:
        project: the project.
        run: which model.
        device: where to compute.
        ranks: the processes that compute it; all but the first begin when the first one does.
        live: where curves are shown, by the first process.

    Raises:
        AcfError: bad configuration or missing data.
    """
    settings = project.params.resolve(run.experiment, run.variant)
    prepared, seen = project.params.prepared(run.experiment), project.params.seen(run.experiment)
    manifest = read_manifest(prepared, project.data)
    if settings.training.horizontal_flips and not manifest.is_of_images:
        raise ConfigError(f"training.horizontal_flips mirrors images, and {prepared} is a table; set it to false")
    task = settings.training.task
    classes = number_of_classes(prepared, task.kind, project.data) if task.reads_labels else None
    model = model_config_from(
        {
            **settings.model.model_dump(),
            "shape": averaged_shape(manifest.shape, seen.average),
            "levels": seen.levels or manifest.levels,
            "classes": classes,
            "training_log_det": settings.training.log_det,
        }
    )
    training = _Training(project, run, prepared, model, settings.training, device, ranks, live)
    return Computation(
        stage="train",
        settings={**training.identity, "model": model.model_dump(mode="json")},
        inputs={"train": manifest.sha256["train"], **labels_input(manifest, classes)},
        paths=[project.model(run) / name for name in (WEIGHTS, CONFIG, HISTORY)],
        work=work(settings, "train", model.shape),
        compute=training.compute,
    )


@dataclass(frozen=True)
class _Training:
    """What a training depends on."""

    project: Project
    run: Run
    prepared: str
    model: ModelConfig
    config: TrainingConfig
    device: str
    ranks: Ranks
    live: Live

    @property
    def identity(self) -> dict[str, Any]:
        """What is trained and how, as recipe and record have it."""
        dataset = self.project.params.dataset(self.run.experiment)
        return {**self.run.identity(dataset), "training": self.config.model_dump(mode="json")}

    def compute(self, store: RunStore) -> Outputs:
        """Train, or go on from the checkpoint in the store's folder."""
        from acf.data.prepared.tensors import load_samples
        from acf.training.batches import Batches

        average = self.project.params.seen(self.run.experiment).average
        images = load_samples(self.prepared, "train", self.project.data, self.model.levels, average)
        held_out, count = self.config.validation_images, len(images)
        if held_out >= count:
            raise ConfigError(
                f"training.validation_images ({held_out}) leaves nothing of the {count} samples of {self.prepared}"
            )
        labels = split_labels(self.prepared, "train", self.model.classes, self.project.data)
        batches = Batches(images, held_out, self.run.seed, labels)
        with _own_device(self.device) as device:
            return self._train_on(device, batches, store)

    def _train_on(self, device: "torch.device", batches: "Batches", store: RunStore) -> Outputs:
        import torch

        from acf.flows.storage import serialise
        from acf.training.trainer import Trainer

        title, ranks = f"train {self.run.folder.as_posix()}", self.ranks
        if ranks.first:
            _note_threads(title, store.folder, ranks)
            ranks.from_first(store.folder)  # the others begin
        shown = self.live.folders(self.run, store.recipe, self.project.root) if ranks.first else {}
        with LiveCurves(title, shown) as curves:
            trainer = Trainer(
                *(self.model, self.config, batches, self.run.seed, device, store.folder, title, ranks, curves.update)
            )
            flow, certificate = trainer.run()
        record = {
            **self.identity,
            "recipe": store.recipe,
            "train_seconds": round(trainer.seconds, 3),
            "train_steps": trainer.step,
            "weights_step": trainer.kept_step,
            "device": f"{ranks.number} x {describe_device(device)}" if ranks.number > 1 else describe_device(device),
            "certificate_worst": certificate.worst,
            "versions": {"torch": torch.__version__},
        }
        files = {**serialise(flow, record), HISTORY: trainer.history.as_csv().encode()}
        summary = f"worst Lipschitz bound {certificate.worst:.4f}"
        return Outputs(files, summary, trainer.checkpoints.loss(trainer.step))


@contextmanager
def _own_device(name: str) -> Iterator["torch.device"]:
    """The device of this process; several processes have theirs from whatever has started them."""
    if (device := _device_of_rank(name)) is not None:
        yield device
    else:
        with leased_device(name) as device:
            yield device


def _counted(threads: int, processes: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)} in {processes} process{'es' * (processes != 1)}"


def _note_threads(title: str, folder: Path, ranks: Ranks) -> None:
    """Note the numbers of threads and processes beside the checkpoints in `folder`; say if the last start had others.

    Sums over other numbers of them are rounded differently.
    """
    import torch

    from acf.training.checkpoint import NAME as CHECKPOINT

    path, numbers = folder / THREADS, _counted(torch.get_num_threads(), ranks.number)
    before = path.read_text(encoding="utf-8") if path.exists() else numbers
    if before != numbers and (folder / CHECKPOINT).exists():
        print(
            f"{title}: this start has {numbers}, the one before the interruption had {before}; the result is that of "
            "an uninterrupted training up to rounding, not to the bit",
            flush=True,
        )
    with suppress(UnwritableError):  # a full disk is no reason not to train
        write_atomically(path, numbers.encode())
