from pathlib import Path

import pytest

from acf.runs.recipe import CODE, PACKAGE, file_hash, recipe

PLAIN = """
class Flow:
    def forward(self, x):
        return x + 1
"""
COMMENTED = '''
"""A module."""

class Flow:  # the flow
    """A flow."""

    def forward(self,
                x):
        """Add one."""
        return (x  +  1)
'''


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for place in {place for places in CODE.values() for place in places}:
        path = tmp_path / place if place.endswith(".py") else tmp_path / place / "part.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLAIN)
    return tmp_path


def of(code: Path, stage: str = "train", **settings: object) -> str:
    return recipe(stage, settings, {"manifest": "abc"}, code)


def test_comments_docstrings_and_format_do_not_count(code: Path) -> None:
    before = of(code)
    (code / "flows" / "part.py").write_text(COMMENTED)
    assert of(code) == before


@pytest.mark.parametrize("change", ["x + 2", "x - 1", "x + 1.0", "x + '1'", "y + 1"])
def test_code_counts(code: Path, change: str) -> None:
    before = of(code)
    (code / "flows" / "part.py").write_text(PLAIN.replace("x + 1", change))
    assert of(code) != before


def test_strings_that_are_values_count(code: Path) -> None:
    (code / "flows" / "part.py").write_text("kind = 'l2'")
    before = of(code)
    (code / "flows" / "part.py").write_text("kind = 'dot'")
    assert of(code) != before


def test_only_the_code_of_the_stage_counts(code: Path) -> None:
    train, evaluate = of(code, "train"), of(code, "evaluate")
    (code / "evaluation" / "part.py").write_text("changed = True")
    (code / "reporting" / "new.py").write_text("new = True")
    assert of(code, "train") == train
    assert of(code, "evaluate") != evaluate


def test_new_file_counts_and_compiled_files_do_not(code: Path) -> None:
    before = of(code)
    (code / "flows" / "__pycache__").mkdir()
    (code / "flows" / "__pycache__" / "part.cpython-311.pyc").write_bytes(b"compiled")
    assert of(code) == before
    (code / "flows" / "new.py").write_text("")
    assert of(code) != before


def test_settings_count_and_their_order_does_not(code: Path) -> None:
    assert of(code, a=1, b={"c": 2, "d": [3]}) == of(code, b={"d": [3], "c": 2}, a=1)
    assert of(code, a=1) != of(code, a=2)
    assert of(code, a=[1, 2]) != of(code, a=[2, 1])


def test_inputs_and_stage_count(code: Path) -> None:
    names = {
        recipe(stage, {}, {"manifest": content}, code)
        for stage in ("evaluate", "sample", "train")
        for content in ("abc", "abd")
    }
    assert len(names) == 6
    assert all(len(name) >= 16 and int(name, 16) >= 0 for name in names)


def test_stages_name_code_that_exists() -> None:
    assert all((PACKAGE / place).exists() for places in CODE.values() for place in places)


def test_file_hash_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
