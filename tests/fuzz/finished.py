"""A small study with every file that the stages write, and the commands that read each of them."""

from __future__ import annotations

import csv
import json
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis.strategies import SearchStrategy

import acf
from acf.data import load, verify
from acf.data.download.downloads import HASHES, Downloads
from acf.data.prepared.labels import read_labels
from acf.errors import AcfError
from acf.flows.record import read_record
from acf.settings.config import model_config_from
from acf.settings.params import Params
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.graph import check_graph, write_graph
from acf.stages.index import index
from acf.stages.readme import check_readme, write_readme
from acf.stages.report import report
from acf.stages.sample import sample
from acf.stages.train import train
from tests.conftest import write_study
from tests.fuzz.damage import damaged, json_damage

PROJECT = Path(__file__).parents[2]
RUN = ("digits", "resflow", 0)
MODEL, RESULTS, SAMPLES = (f"{folder}/digits/resflow/seed0" for folder in ("models", "results", "samples"))


def finish(root: Path, digits: Path) -> Path:
    """Make a project in `root` and run every stage of it."""
    write_study(root, digits, training={"steps": 2, "validate_every": 1}, evaluation={"images": 4, "draws": 2})
    path = root / "params.yaml"
    study = yaml.safe_load(path.read_text())
    study["experiments"]["digits"]["variants"] = {"resflow": {}}
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    (root / "workflow").mkdir()
    (root / "workflow" / "dvc.yaml.j2").write_bytes((PROJECT / "workflow" / "dvc.yaml.j2").read_bytes())
    (root / "README.md").write_text(
        "# Study\n\n<!-- results:digits -->\n<!-- /results -->\n<!-- findings:attention -->\n<!-- /findings -->\n"
    )
    (root / HASHES).write_text(json.dumps({"mnist": {"images.gz": "0" * 64}, "svhn": {"train.mat": "1" * 64}}))
    for stage in (train, evaluate, sample):
        stage(*RUN, "cpu", root)
    baselines("digits", root)
    report("digits", root)
    index(root)
    write_readme(root)
    write_graph(root)
    return root


@dataclass(frozen=True)
class StoredFile:
    """A kind of stored file.

    Attributes:
        path: of the file in the project; a pattern for those in the run store.
        read: does what the program does with it, in a project; must return the same for the same content.
        damage: the contents that are tried, given the sound one.
        protected: whether nothing else may be read than what the sound file has.
    """

    path: str
    read: Callable[[Path], Any]
    damage: Callable[[bytes], SearchStrategy[bytes]] = damaged
    protected: bool = False


def _tensors(root: Path) -> list[torch.Tensor]:
    verify("digits", root / "data")
    return [load("digits", split, root / "data")[:].clone() for split in ("train", "test")]


def _model(root: Path) -> dict[str, torch.Tensor]:
    """Load the model, unless its configuration is of one that would take long to build."""
    for stage in (evaluate, sample):
        stage(*RUN, "cpu", root)
    config = model_config_from(read_record(root / MODEL)["model"])
    if sum(config.blocks) + config.fc_blocks + config.dense.depth > 20 or config.power_iterations > 100:
        raise AcfError("not built here")
    return dict(acf.load(root / MODEL).state_dict())


def _report(root: Path) -> None:
    report("digits", root)
    with (root / "reports/digits/table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            del row["device"]  # words, whatever they are
            assert not any(re.search(r"\b(nan|inf)\b", value, re.IGNORECASE) for value in row.values()), row


def _known_hashes(root: Path) -> dict[str, str]:
    return Downloads("mnist", root / "data/.downloads/mnist", root / HASHES)._known()


STORED = {
    "manifest": StoredFile("data/digits/manifest.json", lambda root: _tensors(root), json_damage),
    "images": StoredFile("data/digits/test.pth", _tensors, damaged, protected=True),
    "labels": StoredFile(
        "data/digits/labels.json", lambda root: read_labels("digits", root / "data").model_dump(), protected=True
    ),
    "config": StoredFile(f"{MODEL}/config.json", _model, json_damage),
    "weights": StoredFile(f"{MODEL}/model.safetensors", _model, damaged, protected=True),
    "history": StoredFile(f"{MODEL}/history.csv", _report),
    "metrics": StoredFile(f"{RESULTS}/metrics.json", _report, json_damage),
    "baselines": StoredFile("results/digits/baselines.json", _report, json_damage),
    "test images": StoredFile("analyses/digits/resflow/seed0/images.csv", _report),
    "baselines' images": StoredFile("analyses/digits/baselines.csv", _report),
    "samples": StoredFile(f"{SAMPLES}/samples.png", _report),
    "sampled": StoredFile(f"{SAMPLES}/samples.json", _report, json_damage),
    "table": StoredFile("reports/digits/table.csv", lambda root: (index(root), check_readme(root))),
    "findings": StoredFile("reports/digits/findings.json", check_readme, json_damage),
    "curves": StoredFile("curves/digits.csv", check_readme),
    "readme": StoredFile("README.md", check_readme),
    "graph": StoredFile("dvc.yaml", check_graph),
    "template": StoredFile("workflow/dvc.yaml.j2", check_graph),
    "settings": StoredFile("params.yaml", lambda root: Params(root / "params.yaml").runs()),
    "hashes": StoredFile(HASHES, _known_hashes, json_damage),
}


def no_code(*_: Any) -> dict[str, str]:
    """Take the place of the function that hashes the program's code, which takes long."""
    return {}


@contextmanager
def little_memory(gigabytes: int = 3) -> Iterator[None]:
    """Let this process have only so much more memory, so that no damaged size takes all of the machine's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + gigabytes * 2**30, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
