import json
from pathlib import Path

import pytest

from acf.runs.code import CODE
from acf.runs.recipe import code_hashes
from acf.stages.code_notes import note_code, write_code


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("")
    return tmp_path


def test_each_stage_has_a_file_with_the_hashes_of_its_recipe(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_code(root)
    assert {path.stem for path in (root / "code").iterdir()} == set(CODE)
    for stage in ("train", "report"):
        assert json.loads((root / "code" / f"{stage}.json").read_text()) == code_hashes(stage)
    write_code(root)
    assert capsys.readouterr().out.endswith("code: up to date\n")


def test_a_stage_says_which_code_runs_even_if_files_changed_after_dvc_began(root: Path) -> None:
    note_code("train", {"flows/flow.py": "new"}, root)
    assert not (root / "code").exists()  # a project without DVC
    path = root / "code" / "train.json"
    path.parent.mkdir()
    cached = root / "cached.json"
    cached.write_text('{"flows/flow.py": "old"}')
    path.symlink_to(cached)  # as DVC may link a file to its cache, which must not change
    note_code("train", {"flows/flow.py": "new"}, root)
    assert json.loads(path.read_text()) == {"flows/flow.py": "new"}
    assert json.loads(cached.read_text()) == {"flows/flow.py": "old"}
