"""The tables in docs/ are what their programs make of the stored results, not written by hand."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLES = sorted(path.name for path in (ROOT / "docs/tables").glob("*.md"))
MAKERS: dict[str, tuple[str, str]] = {
    "joins.md": ("joins", "markdown"),
    "tightening.md": ("tightening", "markdown"),
    "normalisers.md": ("normalisers", "table"),
    "attention_strength.md": ("attention_strength", "table"),
    "log_determinant.md": ("log_determinant_table", "markdown"),
    "sampling.md": ("sampling", "markdown"),
    "evaluation.md": ("evaluation", "markdown"),
    "conversion.md": ("conversion", "markdown"),
    "systematic_lengths.md": ("systematic_lengths", "markdown"),
    "optimisers.md": ("optimisers", "markdown"),
    "layers.md": ("layers", "markdown"),
    "attention.md": ("attention", "markdown"),
    "monotone.md": ("monotone", "markdown"),
    "soak.md": ("soak", "markdown"),
}


def remade(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module, function = MAKERS[name]
    make: Callable[[Any], str] = getattr(importlib.import_module(module), function)
    results = json.loads((ROOT / f"benchmarks/results/{Path(name).stem}.json").read_text())
    return make(results["rows"] if name == "attention_strength.md" else results)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_a_rendering_of_its_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remade(name, monkeypatch) == (ROOT / "docs/tables" / name).read_text()


def test_the_page_on_performance_is_a_rendering_of_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    performance = importlib.import_module("performance")
    assert performance.markdown(performance.stored()) == (ROOT / "docs/performance.md").read_text()


def test_the_gallery_is_a_rendering_of_its_results_and_has_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    toys = importlib.import_module("toys")
    results = json.loads((ROOT / "benchmarks/results/toys.json").read_text())
    assert toys.markdown(results) == (ROOT / "docs/gallery.md").read_text()
    pictures = {path.stem for path in (ROOT / "docs/toys").glob("*.png")}
    assert pictures == {toys.name_of(found) for found in results["toys"]}
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs/toys").glob("*.png"))
    for found in results["toys"]:
        assert found["certificate"]["worst"] < 1
        assert found["integral"] == pytest.approx(1, abs=0.01)


def test_every_table_the_documents_name_is_there() -> None:
    text = (ROOT / "docs/mathematics.md").read_text() + (ROOT / "README.md").read_text()
    named = {part.split(")")[0].split(".md")[0] for part in text.split("tables/")[1:]}
    assert named <= {Path(name).stem for name in TABLES}
