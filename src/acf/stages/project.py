"""The folders of a project, as docs/architecture.md lists them."""

from functools import cached_property
from pathlib import Path

from acf.errors import ConfigError
from acf.registry import datasets
from acf.settings.params import PARAMS_FILE, Params, Run

HISTORY = "history.csv"
"""The table of a training, beside the model."""
IMAGES, BASELINE_IMAGES = "images.csv", "baselines.csv"
"""Tables of single test images, whose hash stands in metrics.json and in baselines.json."""
SAMPLES, RECONSTRUCTIONS = "samples.png", "reconstructions.png"
TEMPERATURES, NEAREST = "temperatures.png", "nearest.png"
"""The pictures of a model."""
SAMPLES_RECORD = "samples.json"
"""What was measured of them."""
SAMPLE_FILES = (SAMPLES, RECONSTRUCTIONS, TEMPERATURES, NEAREST, SAMPLES_RECORD)
PAIRS, ROWS, ROWS_RECORD = "pairs.png", "rows.csv", "rows.json"
ROW_FILES = (PAIRS, ROWS, ROWS_RECORD)
"""The same of a model of vectors: a picture, samples as a table, and what was measured of them."""


class Project:
    """Where things are below a project's top folder.

    Attributes:
        root: the top folder, which holds params.yaml.
        data: folder of the prepared data sets.

    Raises:
        ConfigError: the folder has no params.yaml, so it is no project.
    """

    def __init__(self, root: Path | str = Path(".")) -> None:
        self.root = Path(root)
        self.data = self.root / "data"
        if not (self.root / PARAMS_FILE).exists():  # so that nothing is written into whatever folder this is
            raise ConfigError(f"no {PARAMS_FILE} in {self.root.resolve()}; run acf in the top folder of a project")

    @cached_property
    def params(self) -> Params:
        """The settings of the study.

        Raises:
            ConfigError: params.yaml is missing or wrong; the message has key and line.
        """
        return Params(self.root / PARAMS_FILE)

    def source(self, dataset: str) -> str:
        """Name of the data set that is prepared for `dataset`: itself, or the source that params.yaml gives it.

        Raises:
            ConfigError: it is not registered, and params.yaml, which names it, is wrong.
        """
        if dataset in datasets():  # which needs no params.yaml that is whole
            return dataset
        try:
            return str(self.params.raw["datasets"].get(dataset, {}).get("source", dataset))
        except ConfigError:
            if dataset in (self.root / PARAMS_FILE).read_text(encoding="utf-8", errors="replace"):
                raise
            return dataset

    def model(self, run: Run) -> Path:
        """Folder of a trained model."""
        return self.root / "models" / run.folder

    def training_record(self, run: Run) -> Path:
        """File that says how a model was trained, beside its weights."""
        return self.model(run) / "config.json"

    def metrics(self, run: Run) -> Path:
        """File of what was measured of a model."""
        return self.root / "results" / run.folder / "metrics.json"

    def baselines(self, experiment: str) -> Path:
        """File of what was measured of the baselines of an experiment."""
        return self.root / "results" / experiment / "baselines.json"

    def images(self, run: Run) -> Path:
        """Table of bits/dim of every test image under a model."""
        return self.analyses(run) / IMAGES

    def baseline_images(self, experiment: str) -> Path:
        """Table of bits/dim of every test image under each baseline of an experiment."""
        return self.root / "analyses" / experiment / BASELINE_IMAGES

    def samples(self, run: Run) -> Path:
        """Folder of the pictures of a model."""
        return self.root / "samples" / run.folder

    def sample_files(self, experiment: str) -> list[str]:
        """Names of the files that the stage `sample` writes of each model of an experiment."""
        return list(SAMPLE_FILES if self.params.is_of_images(experiment) else ROW_FILES)

    def analyses(self, run: Run) -> Path:
        """Folder of what the analyses found of a model."""
        return self.root / "analyses" / run.folder

    def report(self, experiment: str) -> Path:
        """Folder of the report on an experiment."""
        return self.root / "reports" / experiment

    def summary(self, experiment: str) -> Path:
        """File with few numbers of every model of an experiment, for DVC."""
        return self.root / "summaries" / f"{experiment}.json"

    def curves(self, experiment: str) -> Path:
        """Table of the training curves of an experiment, for DVC."""
        return self.root / "curves" / f"{experiment}.csv"

    @property
    def index(self) -> Path:
        """Page over the reports of all experiments."""
        return self.root / "reports" / "index.html"

    def lock(self, name: str) -> Path:
        """File that a second process of the same name waits for."""
        return self.root / ".acf" / f"{name}.lock"
