"""The parts of README.md and docs/results.md that are written from the reports, each between two comments.

`<!-- results:E -->` to `<!-- /results -->` holds the table of an experiment, `<!-- findings:T -->` to
`<!-- /findings -->` a topic of `acf.reporting.findings.topics`, over all experiments. The rest is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from acf.data.sources.registered import dataset_source
from acf.errors import AcfError, shown
from acf.reporting.comparison import read_comparison
from acf.reporting.findings.study import Experiment
from acf.reporting.findings.topics import TOPICS
from acf.reporting.findings_file import FINDINGS, read_findings
from acf.reporting.for_dvc import read_curves
from acf.reporting.wording import README, markdown
from acf.runs.files import write_atomically
from acf.stages.bases import attentive, bases, within_branches
from acf.stages.experiment_results import tasks
from acf.stages.index import TABLE
from acf.stages.project import Project
from acf.stages.same_trainings import require_same_trainings

PAGE, OTHER_PAGES = "README.md", ("docs/results.md",)
"""The page that every project has, and those that it may have."""
SECTION = re.compile(
    r"(<!-- (?P<kind>results|findings):(?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- /(?P=kind) -->)", re.DOTALL
)
MARKER = re.compile(r"<!-- (?:(?:results|findings):.*?|/(?:results|findings)) -->")


def readme_table(table: pd.DataFrame) -> str:
    """Return the table of an experiment from the comparison table of its report."""
    return f"\n{markdown(table, README)}\n"


def write_readme(root: Path = Path(".")) -> None:
    """Rewrite all generated parts of `README.md` and, where there is one, of `docs/results.md`.

    All are made before the first page is written.

    Raises:
        AcfError: README has no markers, or a page some without a partner or of an unknown topic; the report of an
            experiment that README names is missing or damaged; or a page cannot be written, which then is as it was.
    """
    for path, text, new in _pages(Path(root)):
        if new != text:
            write_atomically(path.resolve(), new.encode())
        print(f"{path}: {'rewritten' if new != text else 'up to date'}")


def check_readme(root: Path = Path(".")) -> None:
    """Check that all generated parts are what `write_readme` would write.

    Raises:
        AcfError: one is stale (the message names it), or as for `write_readme`.
    """
    pages = _pages(Path(root))
    for path, text, new in pages:
        written = zip(SECTION.finditer(text), SECTION.finditer(new), strict=True)
        if stale := [old["name"] for old, section in written if old["text"] != section["text"]]:
            names = ", ".join(dict.fromkeys(stale))
            raise AcfError(f"{path}: the results of {names} are not those of the reports; run: acf readme")
    for path, *_ in pages:
        print(f"{path}: up to date")


def read_study(project: Project) -> list[Experiment]:
    """Return what is stored of all experiments in params.yaml that count; those without a report have no results.

    An experiment says itself whether it counts as evidence (`reporting.counted`).

    Raises:
        AcfError: a file of a report is damaged, or of other trainings than the report; names it, and what writes it
            again.
    """
    return [_experiment(project, name) for name in project.params.experiments if project.params.reporting(name).counted]


def _experiment(project: Project, name: str) -> Experiment:
    params, report = project.params, project.report(name)
    known = Experiment(
        name=name,
        dataset=params.dataset(name),
        seeds=params.seeds(name),
        bases=bases(params, name),
        attentive=attentive(params, name),
        tasks=tasks(params, name),
        within_branches=within_branches(params, name),
        incomparable_seconds=params.reporting(name).incomparable_seconds,
    )
    if not (report / TABLE).exists():
        return known
    table = read_comparison(report / TABLE, name)
    require_same_trainings(table, project.summary(name), project.curves(name), name)
    with_report = replace(known, table=table, remark=dataset_source(params.prepared(name)).remark)
    if (report / FINDINGS).exists():
        with_report = replace(with_report, findings=read_findings(report / FINDINGS, name))
    if with_report.flows.empty or not project.curves(name).exists():
        return with_report
    return replace(with_report, curves=read_curves(project.curves(name), name))


def _pages(root: Path) -> list[tuple[Path, str, str]]:
    """Return each page, its text, and what the text is to be."""
    project = Project(root)
    study = cache(lambda: read_study(project))
    texts = {path: _text(path) for name in (PAGE, *OTHER_PAGES) if (path := root / name).exists() or name == PAGE}
    return [(path, text, _written(path, text, project, study)) for path, text in texts.items()]


def _written(path: Path, text: str, project: Project, study: Callable[[], list[Experiment]]) -> str:
    """Return the text of a page with all its generated parts written anew."""
    return SECTION.sub(lambda section: _whole(section, path, project, study), text)


def _whole(section: re.Match[str], path: Path, project: Project, study: Callable[[], list[Experiment]]) -> str:
    """Return a generated part with its markers."""
    name = section["name"]
    if section["kind"] == "results":
        text = readme_table(read_comparison(project.report(name) / TABLE, name))
    elif name in TOPICS:
        text = f"\n{TOPICS[name](study())}\n"
    else:
        raise AcfError(f"{path}: no topic {shown(name)} of findings; there are: {', '.join(TOPICS)}")
    return section[1] + text + section[5]


def _text(path: Path) -> str:
    """Return the text of a page, whose markers go together."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AcfError(
            f"{path} cannot be read: {error.strerror or error}; run acf readme in the top folder of the project"
        ) from None
    except UnicodeDecodeError as error:
        raise AcfError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8") from None
    sections = list(SECTION.finditer(text))
    if not sections and path.name == PAGE:
        raise AcfError(f"{path} has no results table: write <!-- results:digits --> and <!-- /results --> on two lines")
    # Two markers to a section: one without a partner would have the text up to the next one replaced by a table.
    for section in sections:
        if MARKER.search(section["text"]):
            end = f"<!-- /{section['kind']} -->"
            raise AcfError(f"{path}: the {section['kind']} of {section['name']} do not end: write {end} there")
    if len(MARKER.findall(text)) != 2 * len(sections):
        raise AcfError(
            f"{path} has a marker of results without a partner: each <!-- results:... --> needs its own end, and each "
            "<!-- findings:... -->, too"
        )
    return text
