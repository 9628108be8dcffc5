"""What README shows is what works."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_code_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    samples, x, again = names["samples"], names["x"], names["x_again"]
    assert isinstance(samples, torch.Tensor)
    assert samples.shape == (16, 1, 8, 8)
    assert isinstance(x, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert float((x - again).detach().abs().max()) < 1e-4
    assert (tmp_path / "my-flow" / "model.safetensors").is_file()


def test_the_commands_in_the_readme_exist() -> None:
    from typer.testing import CliRunner

    from acf.cli import app

    commands = set(re.findall(r"^    acf (\w+)", README, re.MULTILINE))
    assert {"prepare", "train", "evaluate", "baselines", "sample", "report"} <= commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
