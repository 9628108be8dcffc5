"""Any params.yaml is read, or refused in one sentence that names the file."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from dvc.utils.serialize import parse_yaml

import acf
from acf.errors import AcfError
from acf.settings.config import ModelConfig
from acf.settings.params import Params
from acf.stages.graph import graph_text
from acf.stages.project import Project
from tests.fuzz.cases import few_or_many, try_all, value_or_refusal
from tests.fuzz.documents import documents

ROOT = Path(__file__).parents[2]
SHAPE = (1, 4, 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workflow").mkdir()
    shutil.copy(ROOT / "workflow" / "dvc.yaml.j2", tmp_path / "workflow")
    return tmp_path


def assert_builds_or_is_refused(config: ModelConfig) -> None:
    """Build the model if it is small, and see that a density comes out of it."""
    sizes = (
        4 * sum(config.blocks),
        config.idim,
        *config.kernels,
        4 * config.fc_blocks,
        config.fc_width,
        config.attention.heads,
    )
    if max(*sizes, config.dense.depth, config.dense.growth, config.power_iterations) > 16 or len(config.kernels) > 5:
        return

    def attempt() -> None:
        torch.manual_seed(0)
        assert acf.build(config)(torch.rand(2, *SHAPE))[0].isfinite().all()

    value_or_refusal(attempt)


@few_or_many
def test_any_params_file_is_read_or_refused(cases: int, root: Path) -> None:
    path = root / "params.yaml"

    def holds(content: bytes) -> None:
        path.write_bytes(content)
        params = value_or_refusal(lambda: Params(path))
        if isinstance(params, AcfError):
            assert str(path) in str(params)
            return
        assert params.raw == parse_yaml(content.decode("utf-8-sig"), path), "DVC reads something else"
        graph = yaml.load(graph_text(Project(root)), yaml.CSafeLoader)
        assert {f"train-{name}" for name in params.experiments} <= set(graph["stages"])
        for run in params.runs():
            assert 0 <= run.seed < 2**63
            assert (root / run.folder).resolve().relative_to(root).parts == run.folder.parts
        for experiment in params.experiments:
            for variant in params.variants(experiment):
                settings = params.resolve(experiment, variant)
                model = ModelConfig(**settings.model.model_dump(), shape=SHAPE, levels=17)
                assert_builds_or_is_refused(model)

    try_all(cases, documents(), holds)
