"""A real report and the index over it, made from small result files."""

import shutil
from pathlib import Path

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


PAGES = {"report": "digits/index.html", "index": "index.html"}


@pytest.fixture(scope="session", params=PAGES)
def url(request: pytest.FixtureRequest, reports: Path) -> str:
    """The address of each page."""
    return (reports / PAGES[request.param]).as_uri()


@pytest.fixture(scope="session")
def report_url(reports: Path) -> str:
    return (reports / PAGES["report"]).as_uri()
