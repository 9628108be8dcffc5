"""Values of params.yaml: read as every program reads them, or refused with their line."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from acf.errors import ConfigError, shown
from acf.settings.config import EvaluationConfig, ModelConfig, TrainingConfig
from acf.settings.params import Params
from acf.settings.yaml_file import MOST_VALUES, plain_value, read_yaml
from tests.settings.test_params import PROJECT, TEXT, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("1.0e-3", 1e-3), ("-.5", -0.5), ("5.", 5.0), ("1E+5", 1e5), (".inf", math.inf)),
        *(("0", 0), ("-17", -17), ("+3", 3), ("true", True), ("False", False), ("null", None), ("~", None)),
        *(("l2", "l2"), ("a b", "a b"), ("-x", "-x"), ("é", "é"), ("1.2.3", "1.2.3"), ("e5", "e5")),
    ],
)
def test_plain_words(text: str, value: object) -> None:
    found = plain_value(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "text", ["yes", "on", "Off", "010", "09", "0o17", "0x10", "0b11", "1_000", "1:30", "2020-01-01", "=", "9" * 5000]
)
def test_words_that_programs_read_differently_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml:3: ") as caught:
        read(tmp_path, TEXT.replace("steps: 10,", f"steps: {text},"))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["yes", "true", "'10'", "10.0", "1e1", "[10]", "{}", "null", "ten", ".inf", "1_0"])
def test_what_is_no_whole_number_is_not_taken_for_one(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml:3: "):
        read(tmp_path, TEXT.replace("steps: 10,", f"steps: {text},").replace("training: {steps: 20}", "training: {}"))


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (TrainingConfig, {"learning_rate": "1e-3"}),
        (TrainingConfig, {"learning_rate": True}),
        (TrainingConfig, {"learning_rate": 10**400}),
        (TrainingConfig, {"horizontal_flips": 1}),
        (TrainingConfig, {"horizontal_flips": "true"}),
        (TrainingConfig, {"betas": ["0.9", 0.99]}),
        (TrainingConfig, {"steps": 2**31}),
        (EvaluationConfig, {"seed": 2**63}),
        (EvaluationConfig, {"images": True}),
        (EvaluationConfig, {"log_det": {"distribution": "geometric", "parameter": 1e-9}}),
        (ModelConfig, {"shape": (1, 8, 8), "blocks": [True]}),
        (ModelConfig, {"shape": (1, 8, 8), "blocks": [10**9]}),
        (ModelConfig, {"shape": (1, 8, "8")}),
        (ModelConfig, {"shape": (1, 8, 8), "idim": np.array([3, 4])}),
    ],
)
def test_values_of_another_type_or_size_are_refused(section: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(values)


def test_sequences_and_integers_of_python_libraries_are_accepted() -> None:
    config = ModelConfig.model_validate({"shape": torch.zeros(1, 8, 8).shape, "blocks": (2,), "idim": np.int64(8)})
    assert (config.shape, config.blocks, config.idim) == ((1, 8, 8), [2], 8)
    assert type(config.idim) is int
    assert TrainingConfig(learning_rate=1, betas=[0.5, 0.6]).betas == (0.5, 0.6)  # type: ignore[arg-type]


def test_seeds_of_63_bits_and_no_more(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT.replace("[0, 1]", f"[{2**63 - 1}]")).seeds("digits") == [2**63 - 1]
    for wrong in (2**63, 2**64, -1, "yes", "'1'", "1.0", "true", "010"):
        with pytest.raises(ConfigError, match=r"params.yaml:16"):
            read(tmp_path, TEXT.replace("[0, 1]", f"[{wrong}]"))


def test_merge_keys_and_aliases_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    text = "a: &a {k: 1, l: 2}\nb: &b {k: 3, m: [4]}\nc: {<<: [*a, *b], l: 5}\nd: *b\ne: {l: 6, <<: *a}\n"
    path.write_text(text)
    value, lines = read_yaml(path)
    assert value == yaml.safe_load(text)
    assert (lines["c", "l"], lines["c", "m"], lines["c", "m", 0], lines[("d",)]) == (3, 2, 2, 4)


def test_the_projects_own_file_is_read_as_yaml_reads_it() -> None:
    assert Params(PROJECT / "params.yaml").raw == yaml.safe_load((PROJECT / "params.yaml").read_text())


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"defaults: &a {model: *a}", "params.yaml:1: an alias stands for a value that it is a part of"),
        (b"x:\na: &a\n  <<: *a", ": an alias"),
        (LAUGHS.encode(), f"more than {MOST_VALUES:,} values"),
        (b"[" * 60 + b"]" * 60, "nested too deeply"),
        (b"[" * 600, "nested too deeply"),
        (b"a: 1\nb: !!python/object:os.system x", "params.yaml:2: the tag"),
        (b"a: !!int x", "params.yaml:1: the tag"),
        (b"a: !!timestamp x", "params.yaml:1: the tag"),
        (b"!!int a: 1", ":1: a key must be"),
        (b"? [a]\n: 1", "params.yaml:1: a key must be a plain word"),
        (b"a: {<<: 3}", "params.yaml:1: << takes a mapping"),
        (b"a: 1\nb: \xff", "params.yaml:2: cannot be read as YAML: the line is not in UTF-8"),
        (b"a: 1\n\tb: 2", "params.yaml:2: cannot be read as YAML"),
        (b"a: \x00", "cannot be read as YAML: character 4"),
        (b"a: 1\n---\nb: 1", "params.yaml:2: cannot be read as YAML"),
        (b"", "the file: key 'datasets' is missing"),
        (b"- 1", "params.yaml:1: the file: must be a mapping"),
        (b"4: 1", "key 'datasets' is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Params(path)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 300


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Params(tmp_path)


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert Params(path).raw == yaml.safe_load(TEXT)


@pytest.mark.parametrize("value", ["x" * 1000, "a\nb\x1b[1m", {"k": [1] * 1000}, "\ud800"])
def test_values_in_messages_are_short_and_on_one_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()
