"""A table of one's own through the real engines."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.project import Project

POWER = '''
"""A table of one's own."""

from acf.data.sources.table import Table


class Power(Table):
    name, table = "power", "power.csv"
'''
RUN = "--experiment power --variant resflow --seed 0"
FILES = {"pairs.png", "rows.csv", "rows.json"}
CALLS = {
    *("prepare --dataset power", "baselines --experiment power", "report --experiment power"),
    *(f"{stage} {RUN}" for stage in ("train", "evaluate", "sample")),
}


@pytest.mark.slow
def test_both_engines_build_a_study_on_a_table(tmp_path: Path) -> None:
    project = Project(tmp_path / "study")
    rows = np.random.default_rng(0).normal(size=(200, 3)).tolist()
    (project.root / "power.csv").write_text("a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows))
    (project.root / "src/acf/data/sources/power.py").write_text(POWER)
    line = '"power": "acf.data.sources.power:Power"'
    project.edit("src/acf/registry.py", "TABLES: dict[str, str] = {", f"TABLES: dict[str, str] = {{{line}")
    project.set("datasets.power", {})
    sections = ("training", "evaluation", "sampling", "analyses", "reporting")
    experiment = {name: {} for name in sections} | {"dataset": "power", "seeds": [0], "variants": {"resflow": {}}}
    project.set("experiments.power", experiment | {"model": {"squeeze_first": False}})
    project.output("acf", "graph")
    assert project.dvc("power") == sorted(["code", *CALLS])
    assert project.snakemake("power") == []
    shutil.rmtree(project.root / "samples")
    assert f"sample {RUN}" in project.snakemake("power")
    assert {path.name for path in (project.root / "samples/power/resflow/seed0").iterdir()} == FILES
