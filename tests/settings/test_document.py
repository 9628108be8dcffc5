"""docs/settings.md and the descriptions that it is made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS, OPTIMISERS
from acf.settings import document
from acf.settings.config import AttentionConfig, ModelParams, RunConfig, Section, TrainingConfig

ROOT = Path(__file__).parents[2]


def settings_classes(base: type[Section] = Section) -> Iterator[type[Section]]:
    for section in base.__subclasses__():
        if section.__module__.startswith("acf."):
            yield section
            yield from settings_classes(section)


CLASSES = sorted(set(settings_classes()), key=lambda section: section.__name__)
"""Those of the package alone: tests of docs/extending.md add its examples later."""


def test_the_committed_document_is_up_to_date() -> None:
    committed = (ROOT / document.DOCUMENT).read_text(encoding="utf-8")
    assert committed == document.text(), "run: python -m acf.settings.document"


@pytest.mark.parametrize("section", CLASSES, ids=lambda section: section.__name__)
def test_every_field_of_every_settings_class_says_what_it_is(section: type[Section]) -> None:
    silent = [name for name, field in section.model_fields.items() if not (field.description or "").strip()]
    assert not silent
    for name, field in section.model_fields.items():
        assert (field.description or "").rstrip().endswith("."), f"{section.__name__}.{name}: not a sentence"


def test_every_settings_class_says_what_it_is() -> None:
    assert len(CLASSES) > 10
    assert all(section.__doc__ for section in CLASSES)


def test_every_section_of_a_run_has_one_table() -> None:
    lines = document.text().splitlines()
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert headings[0] == "datasets.D"
    assert [h for h in headings if "." not in h] == list(RunConfig.model_fields)
    assert {"model.attention", "model.dense", "training.muon", "training.log_det", "evaluation.log_det"} <= set(
        headings
    )
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize(
    ("section", "key", "names"),
    [
        (AttentionConfig, "kind", ["none", *ATTENTIONS]),
        (AttentionConfig, "join", ["block", *JOINS]),
        (ModelParams, "branch", [*BRANCHES]),
        (ModelParams, "activation", [*ACTIVATIONS]),
        (TrainingConfig, "optimiser", [*OPTIMISERS]),
    ],
)
def test_names_offered_are_those_accepted(section: type[Section], key: str, names: list[str]) -> None:
    assert section.model_json_schema()["properties"][key]["enum"] == names
    for name in names:
        assert getattr(section.model_validate({key: name}), key) == name


def test_a_section_that_is_added_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(Section):
        """What lies within."""

        mode: Literal["a", "b"] = Field(default="a", description="Either a | or b.")

    class Added(Section):
        """An added section."""

        size: int = Field(gt=0, lt=5, description="How large.")
        place: tuple[int, float] | None = Field(default=None, description="Where.")
        inner: Inner = Field(default=Inner(), description="More.")

    class Run(Section):
        added: Added = Field(description="Added.")

    monkeypatch.setattr(document, "RunConfig", Run)
    text = document.text()
    assert "## added\n\nAn added section.\n" in text
    assert "| `size` | whole number > 0, < 5 | required | How large. |" in text
    assert "| `place` | list of 2: whole number; number or `null` | `null` | Where. |" in text
    assert "| `inner` | [section `added.inner`](#addedinner) |  | More. |" in text
    assert "## added.inner\n\nWhat lies within.\n" in text
    assert '| `mode` | `a`, `b` | `"a"` | Either a \\| or b. |' in text
