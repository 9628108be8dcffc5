"""params.yaml: merging, and errors that point at key and line."""

from pathlib import Path

import pytest

from acf.errors import ConfigError
from acf.registry import ATTENTIONS
from acf.settings.config import ModelConfig, RunConfig, model_config_from
from acf.settings.params import Params

PROJECT = Path(__file__).parents[1]

TEXT = """\
defaults:
  model: {blocks: [2, 2], idim: 16}
  training: {steps: 10, learning_rate: 1.0e-3}
  evaluation: {}
  sampling: {}
  data: {}
variants:
  resflow: {}
  acf-l2: {model: {attention: {kind: l2}}}
experiments:
  digits:
    seeds: [0, 1]
    model: {idim: 8}
    training: {steps: 20}
    evaluation: {draws: 3}
    sampling: {}
    data: {}
    variants:
      resflow: {}
      acf-l2:
        model: {blocks: [1]}
        training: {learning_rate: 5.0e-4}
"""


def read(tmp_path: Path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return Params(path)


def test_later_sections_win(tmp_path: Path) -> None:
    params = read(tmp_path, TEXT)
    plain, attentive = params.resolve("digits", "resflow"), params.resolve("digits", "acf-l2")
    assert (plain.model.blocks, plain.model.idim, plain.model.attention.kind) == ([2, 2], 8, "none")
    assert (attentive.model.blocks, attentive.model.idim, attentive.model.attention.kind) == ([1], 8, "l2")
    assert (plain.training.steps, plain.training.learning_rate) == (20, 1e-3)
    assert (attentive.training.steps, attentive.training.learning_rate) == (20, 5e-4)
    assert params.evaluation("digits").draws == 3
    assert [tuple(run) for run in params.runs()] == [
        ("digits", "resflow", 0),
        ("digits", "resflow", 1),
        ("digits", "acf-l2", 0),
        ("digits", "acf-l2", 1),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("model: {idim: 8}", "model: {idmi: 8}", 13, "experiments.digits.model.idmi: unknown key"),
        ("model: {idim: 8}", "model: {idim: 0}", 13, "experiments.digits.model.idim"),
        (
            "learning_rate: 5.0e-4",
            "learning_rate: fast",
            22,
            "experiments.digits.variants.acf-l2.training.learning_rate",
        ),
        ("{kind: l2}", "{kind: l3}", 9, f"unknown attention 'l3'; known: {', '.join(sorted(['none', *ATTENTIONS]))}"),
        ("evaluation: {draws: 3}", "evaluation: 3", 15, "must be a mapping"),
        ("    sampling: {}\n", "    sampling: {}\n    extra: {}\n", 17, "experiments.digits.extra: unknown key"),
        ("    seeds: [0, 1]\n", "", 11, "key 'seeds' is missing"),
        ("seeds: [0, 1]", "seeds: [0, 0]", 12, "different whole numbers"),
        ("digits:", "digit:", 11, "unknown data set; known: celebahq256, celebahq64, cifar10, digits"),
        ("      resflow: {}\n", "      resflo: {}\n", 19, "unknown variant"),
        (
            "evaluation: {}\n",
            "evaluation: {log_det: {distribution: geometric, parameter: 2.0}}\n",
            4,
            "strictly between 0 and 1",
        ),
        ("kind: l2", "kind: l2, kind: dot", 9, "'kind' stands twice"),
        ("defaults:", "defaults: [", 0, "cannot be read as YAML"),
    ],
)
def test_errors_name_key_and_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert words in str(caught.value)
    assert not line or f"params.yaml:{line}:" in str(caught.value), str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        Params(tmp_path / "params.yaml")


def test_unknown_names(tmp_path: Path) -> None:
    params = read(tmp_path, TEXT)
    with pytest.raises(ConfigError, match="no experiment on 'mnist'; experiments has: digits"):
        params.variants("mnist")
    with pytest.raises(ConfigError, match="no variant 'glow'; it has: resflow, acf-l2"):
        params.resolve("digits", "glow")


def test_model_config_from_dict() -> None:
    config = model_config_from({"shape": (1, 8, 8), "blocks": [1]})
    assert isinstance(config, ModelConfig)
    with pytest.raises(ConfigError, match="kernels: kernels must be odd"):
        model_config_from({"shape": (1, 8, 8), "kernels": [2]})
    with pytest.raises(ConfigError, match="depth: unknown key"):
        model_config_from({"shape": (1, 8, 8), "depth": 3})


def test_the_project_s_own_file_states_every_setting() -> None:
    """Each default of the schema stands in params.yaml, so that the file is the whole recipe."""
    params = Params(PROJECT / "params.yaml")
    written = params.raw["defaults"]
    resolved = RunConfig.model_validate(written).model_dump(mode="json")
    for section, values in resolved.items():
        values.pop("log_det", None) if section == "evaluation" else None
        missing = {key for key in values if key not in written[section]} - {"log_det"}
        assert not missing, f"defaults.{section} does not state {sorted(missing)}"
