"""The site is built without a warning, whole, and asks for nothing; its notebook is executed by `make docs` alone."""

import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import acf
from docs_build.formulas import FORMULA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("built") / "site"
    environment = os.environ | {"ACF_EXECUTE_NOTEBOOK": "false", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


class Document(HTMLParser):
    """What a page has: anchors, what it links to, what it asks for when it is opened, and its text beside code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.asked: list[str] = []
        self.text = ""
        self._silent = 0
        self.formulas = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        self.formulas += tag == "math"
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif address := given.get("src") or given.get("href") or given.get("data"):
            self.asked.append(address)
        self._silent += tag in ("code", "pre", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Document]:
    """All pages but reports, which have tests of their own."""
    return {path: Document(path) for path in site.rglob("*.html") if "reports" not in path.parts}


def place_of(address: str, page: Path, site: Path) -> Path:
    """Where an address of the site leads."""
    path = unquote(urlsplit(address).path)
    return (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Document]) -> None:
    broken = []
    checked = 0
    for page, document in pages.items():
        for address in document.links + document.asked:
            parts = urlsplit(address)
            if parts.scheme or not address:
                assert re.fullmatch(r"https://[a-z0-9.-]+\.[a-z]+(/[\w./-]*)?|data:.*|", address), address
                continue
            place = place_of(address, page, site)
            checked += 1
            if not place.is_file() or (place in pages and unescape(parts.fragment) not in {"", *pages[place].anchors}):
                broken.append(f"{page.relative_to(site)}: {address}")
    assert checked > 500
    assert not broken


def test_pages_ask_for_nothing_outside_the_site(site: Path, pages: dict[Path, Document]) -> None:
    for document in pages.values():
        assert document.asked
        assert not [address for address in document.asked if urlsplit(address).scheme not in ("", "data")]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet


def test_all_formulas_are_rendered(site: Path, pages: dict[Path, Document]) -> None:
    for page, document in pages.items():
        assert not re.findall(r"\\(?:frac|sum|mathrm|lVert|le)\b|\$[^$\n]+\$", document.text), page
    source = re.sub(r"`[^`\n]+`", "", (ROOT / "docs/mathematics.md").read_text(encoding="utf-8"))
    written = len(re.findall(FORMULA, source))
    assert written > 400
    assert pages[site / "mathematics.html"].formulas == written


def public_names() -> list[str]:
    """Every public name with its place."""
    return [f"acf.{name}" for name in acf.__all__] + [f"acf.lipschitz.{name}" for name in acf.lipschitz.__all__]


def test_every_public_name_has_an_entry_in_the_reference(site: Path, pages: dict[Path, Document]) -> None:
    reference = [document for page, document in pages.items() if page.is_relative_to(site / "reference")]
    entries = {name: sum(name in document.anchors for document in reference) for name in public_names()}
    assert len(entries) > 25
    assert {name: count for name, count in entries.items() if count != 1} == {}


def test_every_statement_that_code_and_tests_name_stands_in_the_mathematics() -> None:
    text = (ROOT / "docs/mathematics.md").read_text(encoding="utf-8")
    stated = {" ".join(words) for words in re.findall(r"\*\*(Theorem|Proposition|Lemma) (\d+[a-z]?)", text)}
    named = set()
    for folder in ("src", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            named |= set(re.findall(r"\b(?:Theorem|Proposition|Lemma) \d+[a-z]?\b", path.read_text(encoding="utf-8")))
    own = {name for name in named if int(re.sub(r"\D", "", name)) <= 14}
    assert {"Theorem 4", "Proposition 8"} <= own
    assert own <= stated


@pytest.mark.parametrize("name", ["index.html", "extending.html"])
def test_a_page_opens_in_a_browser_without_network_and_complaint(
    site: Path,
    opened: Any,
    name: str,
) -> None:
    page = opened((site / name).as_uri())
    page.wait_for_timeout(500)
    assert not [asked for asked in page.asked if not asked.startswith(("file:", "data:", "blob:"))]
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
