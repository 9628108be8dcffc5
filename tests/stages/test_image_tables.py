"""The tables of single images that `evaluate` and `baselines` write beside their results, in a folder of their own."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from acf.stages.baselines import baselines
from acf.stages.current import Current, Task
from acf.stages.evaluate import evaluate
from acf.stages.explain import explain
from acf.stages.project import Project
from acf.stages.recorded import recorded_recipe
from tests.stages.conftest import hashed_once

pytestmark = pytest.mark.usefixtures("code_hashed_once")
RUN = ("digits", "acf-l2", 0)
TASKS = {
    "results/digits/acf-l2/seed0/metrics.json": Task("evaluate", ("digits", "acf-l2", "0")),
    "analyses/digits/acf-l2/seed0/images.csv": Task("evaluate", ("digits", "acf-l2", "0")),
    "results/digits/baselines.json": Task("baselines", ("digits",)),
    "analyses/digits/baselines.csv": Task("baselines", ("digits",)),
}


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the study in which acf-l2 is trained and measured."""
    root = tmp_path / "copy"
    for part in ("data", "models", ".acf"):
        shutil.copytree(trained / part, root / part)
    shutil.copy(trained / "params.yaml", root)
    evaluate(*RUN, "cpu", root)
    baselines("digits", root)
    return root


def test_baselines_are_stored_image_by_image(root: Path) -> None:
    content = (root / "analyses/digits/baselines.csv").read_bytes()
    record = json.loads((root / "results/digits/baselines.json").read_text())
    assert record["images_sha256"] == hashlib.sha256(content).hexdigest()
    header, *rows = content.decode().splitlines()
    assert header.split(",") == ["image", *record["baselines"]]
    values = np.array([row.split(",") for row in rows], dtype=float)
    assert values[:, 0].tolist() == list(range(record["test_images"]))
    for column, entry in zip(values[:, 1:].T, record["baselines"].values(), strict=True):
        assert column.mean() == pytest.approx(entry["bits_per_dim"], abs=1e-9)
        assert column.std(ddof=1) / len(column) ** 0.5 == pytest.approx(entry["bits_per_dim_se"], abs=1e-9)


def test_a_table_that_is_lost_or_changed_is_made_again(root: Path) -> None:
    sound = {name: (root / name).read_bytes() for name in TASKS}
    code = {stage: hashed_once(stage) for stage in ("prepare", "train", "evaluate", "baselines")}
    current = Current(Project(root), code)  # whose answers on outputs and expectations are of the moment

    def in_place(task: Task) -> bool:
        return recorded_recipe(current.outputs(task)) == current.expected(task)

    for name in (name for name in TASKS if name.endswith(".csv")):
        for content in (None, sound[name][:-20], sound[name].replace(b"1", b"2", 1)):
            assert in_place(TASKS[name])
            (root / name).unlink() if content is None else (root / name).write_bytes(content)
            assert not in_place(TASKS[name])
            if TASKS[name].stage == "evaluate":
                evaluate(*RUN, "cpu", root)
            else:
                baselines("digits", root)
            assert {name: (root / name).read_bytes() for name in TASKS} == sound


def test_outputs_in_two_folders_are_explained_and_restored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = explain("evaluate", *RUN, root=root)
    results, analyses = root / "results/digits/acf-l2/seed0", root / "analyses/digits/acf-l2/seed0"
    assert f"The outputs in {results} and {analyses} are of this recipe." in text
    assert "--dry-run results/digits/acf-l2/seed0/metrics.json" in text
    shutil.rmtree(root / "analyses")
    assert f"Some of its outputs are missing in {analyses}." in explain("evaluate", *RUN, root=root)
    shutil.rmtree(root / "results")
    assert f"All of its outputs are missing in {results} and {analyses}." in explain("evaluate", *RUN, root=root)
    capsys.readouterr()
    evaluate(*RUN, "cpu", root)
    assert f"restored metrics.json to {results} and images.csv to {analyses} from " in capsys.readouterr().out
