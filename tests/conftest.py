"""A folder with a tiny study on digits, prepared once; no test leaves anything behind for another."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from acf.runs.threads import wait_passively
from tests.traces import changes, contents, process_state

wait_passively()  # As the program does, also where a test calls it in this process.
torch.set_num_threads(1)
SEED = 0

LONG = (
    *("pipeline/", "stages/test_processes.py", "data/test_experiments.py", "stages/test_train.py"),
    *("bounds/test_attack.py", "flows/test_roulette.py", "data/test_damage.py", "fuzz/test_stored_files.py"),
    *("data/test_killed.py", "data/test_refused.py", "data/test_images.py"),
    *("flows/test_logdet.py", "flows/test_bijections.py", "reporting/test_report.py", "training/test_ranks.py"),
    *("test_example_scripts.py", "test_extras.py", "test_readme_code.py", "flows/test_round_trip.py", "browser/"),
)
"""Files that take longest, which go first: with one of them last, one of two workers would have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, all else in order."""
    items.sort(key=lambda item: next((i for i, part in enumerate(LONG) if part in str(item.path)), len(LONG)))


def pytest_collectstart() -> None:
    """Let what a file draws when it is imported be independent of the files imported before."""
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Start every test with the same random numbers, and fail one that leaves its process other than it was."""
    torch.manual_seed(SEED)
    before = process_state()
    yield
    assert not changes(before, process_state())


MODEL = {
    "blocks": [2],
    "idim": 8,
    "fc_blocks": 1,
    "fc_width": 8,
    "squeeze_first": True,
    "attention": {"kind": "none", "heads": 2},
}
TRAINING = {
    "steps": 12,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "warmup_steps": 2,
    "ema_decay": 0.9,
    "validation_images": 20,
    "validate_every": 4,
}
ANALYSES: dict[str, Any] = {
    "interpolation": {"pairs": 2, "pictured_pairs": 1, "steps": 3},
    "attributes": {"alphas": [0.0, 1.0], "images": 3, "train_images": 40, "pictured_images": 1},
    "noise": {"sigmas": [0.0, 0.1], "images": 2, "train_images": 4},
    "frechet": {"samples": 12, "features": 3, "fitted": 20, "bootstrap": 2},
    "attention": {"images": 3, "shown_images": 1, "queries": [[0.5, 0.5]]},
    "audit": {"images": 2, "steps": 1},
    "densities": {"images": 4, "others": ["noise"]},
}
"""Settings of every analysis with which it takes no time."""
EVALUATION = {"draws": 2, "images": 24, "batch_size": 16, "log_det": {"exact_terms": 4}}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with prepared digits, to copy or read."""
    from acf.stages.prepare import prepare

    root = tmp_path_factory.mktemp("prepared") / "data"
    prepare("digits", root)
    yield from _unchanged(root)


def write_study(root: Path, digits: Path, **sections: dict[str, Any]) -> Path:
    """Make a project folder; keyword arguments override sections of the tiny study on digits."""
    root.mkdir(parents=True)
    shutil.copytree(digits, root / "data")
    defaults = {
        "model": MODEL | sections.get("model", {}),
        "training": TRAINING | sections.get("training", {}),
        "evaluation": EVALUATION | sections.get("evaluation", {}),
        "sampling": {"samples": 9, "columns": 3, "reconstructions": 4, "temperatures": [1.0, 0.7]},
        "analyses": ANALYSES,
        "reporting": {},
    }
    empty: dict[str, Any] = {section: {} for section in defaults}
    params = {
        "defaults": defaults,
        "datasets": {"digits": sections.get("dataset", {})},
        "variants": {
            "resflow": {},
            "acf-l2": {"model": {"attention": {"kind": "l2"}}},
            "acf-dot": {"model": {"attention": {"kind": "dot"}}},
        },
        "experiments": {
            "digits": empty
            | {"dataset": "digits", "seeds": [0], "variants": {"resflow": {}, "acf-l2": {}, "acf-dot": {}}},
        },
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


@pytest.fixture
def study(tmp_path: Path, digits: Path) -> Callable[..., Path]:
    """Make a project folder: a name, and sections of the tiny study that differ."""

    def make(name: str = "study", **sections: dict[str, Any]) -> Path:
        return write_study(tmp_path / name, digits, **sections)

    return make


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Iterator[Path]:
    """What `trained` copies; no test uses it itself."""
    from acf.stages.train import train

    root = write_study(tmp_path_factory.mktemp("trained") / "study", digits)
    train("digits", "acf-l2", 0, "cpu", root)
    yield from _unchanged(root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, trained_once: Path) -> Path:
    """A project folder with acf-l2 trained for a few steps, one of each test file's own."""
    return shutil.copytree(trained_once, tmp_path_factory.mktemp("copy") / "study")


def _unchanged(root: Path) -> Iterator[Path]:
    """Give a folder that all files of a session share, and fail at its end if a test has changed it."""
    before = contents(root)
    yield root
    assert not changes(before, contents(root)), "a test has changed what other tests share"


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
