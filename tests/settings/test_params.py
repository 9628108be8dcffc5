"""params.yaml: merging, and errors that point at key and line."""

from pathlib import Path

import pytest

from acf.errors import ConfigError
from acf.registry import ATTENTIONS
from acf.settings.config import ModelConfig, RunConfig, model_config_from
from acf.settings.params import Params

PROJECT = Path(__file__).parents[2]

TEXT = """\
defaults:
  model: {blocks: [2, 2], idim: 16}
  training: {steps: 10, learning_rate: 1.0e-3}
  evaluation: {}
  sampling: {}
  analyses: {}
  reporting: {}
datasets:
  digits: {}
variants:
  resflow: {}
  acf-l2: {model: {attention: {kind: l2}}}
experiments:
  digits:
    dataset: digits
    seeds: [0, 1]
    model: {idim: 8}
    training: {steps: 20}
    evaluation: {draws: 3}
    sampling: {}
    analyses: {}
    reporting: {}
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
        ("model: {idim: 8}", "model: {idmi: 8}", 17, "experiments.digits.model.idmi: unknown key"),
        ("model: {idim: 8}", "model: {idim: 0}", 17, "experiments.digits.model.idim"),
        (
            "learning_rate: 5.0e-4",
            "learning_rate: fast",
            27,
            "experiments.digits.variants.acf-l2.training.learning_rate",
        ),
        ("{kind: l2}", "{kind: l3}", 12, f"unknown attention 'l3'; known: {', '.join(sorted(['none', *ATTENTIONS]))}"),
        ("evaluation: {draws: 3}", "evaluation: 3", 19, "must be a mapping"),
        ("    sampling: {}\n", "    sampling: {}\n    extra: {}\n", 21, "experiments.digits.extra: unknown key"),
        ("    seeds: [0, 1]\n", "", 14, "key 'seeds' is missing"),
        ("seeds: [0, 1]", "seeds: [0, 0]", 16, "different whole numbers"),
        ("digits:", "digit:", 9, "datasets.digit: unknown data set; known: celebahq256, celebahq64, cifar10, digits"),
        ("      resflow: {}\n", "      resflo: {}\n", 24, "unknown variant"),
        (
            "evaluation: {}\n",
            "evaluation: {log_det: {distribution: geometric, parameter: 2.0}}\n",
            4,
            "strictly between 0 and 1",
        ),
        ("kind: l2", "kind: l2, kind: dot", 12, "'kind' stands twice"),
        (
            "dataset: digits",
            "dataset: mnist",
            15,
            "digits.dataset: no data set 'mnist'; datasets has: digits",
        ),
        ("digits: {}", "digits: {levels: 1}", 9, "datasets.digits.levels"),
        ("digits: {}", "digits: {level: 8}", 9, "datasets.digits.level: unknown key"),
        ("digits: {}", "digits: {average: 2}", 9, "datasets.digits.average: what is averaged needs a name of its own"),
        ("digits: {}", "digits: {average: 0}", 9, "datasets.digits.average"),
        ("digits: {}", "digits: {source: mnist}", 9, "datasets.digits.source: digits is a data set itself"),
        ("  digits: {}\n", "  digits: {}\n  digits-4: {source: digit}\n", 10, "digits-4.source: no data set of images"),
        ("  digits: {}\n", "  digits: {}\n  digits-4: {source: mnist}\n", 10, "'mnist'; `datasets` has: digits"),
        (
            "  digits: {}\n",
            "  digits: {}\n  mnist-4: {source: digits}\n",
            10,
            "datasets.mnist-4: a name of what is made",
        ),
        (
            "  digits: {}\n",
            "  digits: {}\n  digits-a.b: {source: digits, average: 2}\n",
            10,
            "'digits-a.b' cannot be a name",
        ),
        (
            "  digits: {}\n",
            "  digits: {}\n  digits-same: {source: digits}\n",
            10,
            "datasets.digits-same: these are the very images of digits; give `average` or `levels`",
        ),
        (
            "  digits: {}\n",
            "  digits: {}\n  digits-3: {source: digits, average: 3}\n",
            10,
            "datasets.digits-3.average: 3 does not divide height and width of the images of digits, 8x8",
        ),
        ("  digits: {}\n", "  digits: {}\n  digits-4: {average: 2}\n", 10, "datasets.digits-4: unknown data set"),
        ("defaults:", "defaults: [", 0, "cannot be read as YAML"),
    ],
)
def test_errors_name_key_and_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert words in str(caught.value)
    assert not line or f"params.yaml:{line}:" in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "name", ["l2-0.5", "a b", "4", "'4'", "1e5", "0x10", "../../x", "''", "yes", "null", "-x", "é", "a.b"]
)
def test_names_that_cannot_be_folders_commands_and_stages_are_refused(tmp_path: Path, name: str) -> None:
    as_experiment = TEXT.replace("  digits:\n    dataset", f"  {name}:\n    dataset")
    as_variant = TEXT.replace("acf-l2:", f"{name}:")
    for text, line, place in ((as_experiment, 14, "experiments"), (as_variant, 12, "variants")):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, text)
        message = str(caught.value)
        assert f"params.yaml:{line}: {place}." in message
        assert "a name has letters, digits, - and _" in message


@pytest.mark.parametrize("name", ["cifar10-small", "l2_wide", "2blocks", "A", "e5", "x4"])
def test_names_that_can_be_used(tmp_path: Path, name: str) -> None:
    params = read(tmp_path, TEXT.replace("  digits:\n    dataset", f"  {name}:\n    dataset"))
    assert params.experiments == [name]
    assert params.dataset(name) == "digits"


def test_experiments_share_a_data_set(tmp_path: Path) -> None:
    experiments = TEXT[TEXT.index("  digits:\n    dataset") :]
    text = TEXT.replace("digits: {}", "digits: {levels: 4}") + experiments.replace("  digits:\n", "  few-levels:\n", 1)
    params = read(tmp_path, text)
    assert params.experiments == ["digits", "few-levels"]
    assert params.datasets == ["digits"]
    assert {params.dataset(name) for name in params.experiments} == {"digits"}
    assert {params.seen(name).levels for name in params.experiments} == {4}
    assert len(params.runs()) == 2 * len(params.runs("digits")) == 8


def test_what_is_made_of_a_data_set_goes_by_a_name_of_its_own(tmp_path: Path) -> None:
    text = TEXT.replace("  digits: {}\n", "  digits: {}\n  digits-4: {source: digits, average: 2, levels: 17}\n")
    params = read(tmp_path, text.replace("dataset: digits", "dataset: digits-4"))
    assert params.datasets == ["digits"], "what is prepared"
    assert (params.dataset("digits"), params.prepared("digits")) == ("digits-4", "digits")
    assert (params.seen("digits").average, params.seen("digits").levels) == (2, 17)
    assert "the mean of 2 x 2 pixels" in params.seen("digits").made
    assert "not comparable with results on digits" in params.seen("digits").made
    assert read(tmp_path, TEXT).seen("digits").made == ""


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        Params(tmp_path / "params.yaml")


def test_unknown_names(tmp_path: Path) -> None:
    params = read(tmp_path, TEXT)
    with pytest.raises(ConfigError, match="no experiment 'mnist'; experiments has: digits"):
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


def test_the_projects_own_file_states_every_setting() -> None:
    """Each default of the schema stands in params.yaml, so that the file is the whole recipe."""
    params = Params(PROJECT / "params.yaml")
    written = params.raw["defaults"]
    resolved = RunConfig.model_validate(written).model_dump(mode="json")
    for section, values in resolved.items():
        values.pop("log_det", None) if section == "evaluation" else None
        missing = {key for key in values if key not in written[section]} - {"log_det"}
        assert not missing, f"defaults.{section} does not state {sorted(missing)}"
