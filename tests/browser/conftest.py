"""A real report and the index over it, made from small result files, and one browser for all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from acf.registry import ANALYSES
from acf.stages.index import index
from acf.stages.report import report
from tests.reporting import conftest as results

SEEDS = [0, 1, 2]
NAMES = [
    *("resflow", "acf-l2", "acf-dot"),
    *(f"acf-{kind}-in-every-branch-with-{n}-heads" for kind in ("l2", "dot", "sinkhorn") for n in (2, 4)),
    "acf-clip",
]
"""Ten variants, some with long names."""
ANALYSED = NAMES[:4]
"""Those that have analyses, whose figures take most of the time of a report."""
MISSING = NAMES[-1]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `reports` of a study of ten variants with three seeds, one of which is not trained."""
    root = tmp_path_factory.mktemp("browsed")
    patch = pytest.MonkeyPatch()
    kinds = {name: name.split("-")[1] if "-" in name else "none" for name in NAMES}
    patch.setattr(results, "VARIANTS", {name: {"model": {"attention": {"kind": kind}}} for name, kind in kinds.items()})
    patch.setattr(results, "BITS", {name: 2.04 - 0.011 * place for place, name in enumerate(NAMES)})
    with patch.context():
        results.make_project(root, SEEDS)
    patch.undo()
    for seed in SEEDS:
        shutil.rmtree(root / f"models/digits/{MISSING}/seed{seed}")
    for name in set(NAMES) - set(ANALYSED):
        for analysis in ANALYSES:
            for file in (root / f"analyses/digits/{name}").rglob(f"{analysis}.*"):
                file.unlink()
    params = yaml.safe_load((root / "params.yaml").read_text())
    assert list(params["experiments"]["digits"]["variants"]) == NAMES
    report("digits", root)
    index(root)
    return root / "reports"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


PAGES = {"report": "digits/index.html", "index": "index.html"}


@pytest.fixture(scope="session", params=PAGES)
def url(request: pytest.FixtureRequest, reports: Path) -> str:
    """The address of each page."""
    return (reports / PAGES[request.param]).as_uri()


@pytest.fixture(scope="session")
def report_url(reports: Path) -> str:
    return (reports / PAGES["report"]).as_uri()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """A function that opens an address in a window of a width, and notes what the page asks for and complains of."""
    contexts = []

    def open_page(url: str, width: int = 1280, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.asked = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
