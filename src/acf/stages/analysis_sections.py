"""The sections of a report on what the analyses found."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from acf.errors import AcfError
from acf.registry import SECTIONS
from acf.reporting.analysis_files import AnalysisFile, check_found, part_of
from acf.reporting.figures import enlarge
from acf.reporting.page_parts import AnalysedModel, Section
from acf.reporting.results import Absent
from acf.reporting.style import Looks
from acf.settings.analysis_section import AnalysisSection
from acf.settings.params import Run
from acf.stages.measured_files import read_measured, why_absent
from acf.stages.project import Project


class Analyses(NamedTuple):
    """What a report shows of the analyses.

    Attributes:
        sections: one per analysis, in the order of the registry.
        files: those that the sections are made from.
        absent: the analyses of models that are missing or damaged, and why.
    """

    sections: Sequence[Section]
    files: Sequence[AnalysisFile]
    absent: Sequence[Absent]


def analysis_sections(project: Project, experiment: str, bases: Mapping[str, str | None], looks: Looks) -> Analyses:
    """Return the section of each analysis of an experiment; one that some models have not says so in a note."""
    analysed = project.params.analysed(experiment)
    settings = project.params.analyses_made(experiment)
    sections: list[Section] = []
    files: list[AnalysisFile] = []
    absent: list[Absent] = []
    for name in [name for name in SECTIONS if name in settings]:
        part = part_of(name)  # outside the loop below: a section that cannot be imported is no damaged file
        models: dict[str, list[AnalysedModel]] = {variant: [] for variant in project.params.variants(experiment)}
        without: list[Absent] = []
        for run in (run for other, run in analysed if other == name):
            try:
                model, file = _read(project, name, run, settings[name])
            except AcfError as error:
                written = (project.analyses(run) / f"{name}.json").is_file()
                without.append(why_absent(project, run, name, "analysed", written, error))
                continue
            models[run.variant].append(model)
            files.append(file)
        title = name.replace("_", " ").capitalize()
        found = part.section(models, bases, looks) if any(models.values()) else Section(name, title)
        sections.append(replace(found, notes=[*found.notes, *(f"{one.text}." for one in without)]))
        absent += without
    return Analyses(sections, files, absent)


def read_picture(path: Path, remedy: str) -> bytes:
    """Return a picture, enlarged.

    Raises:
        AcfError: it is missing or damaged; the message ends with the remedy.
    """
    try:
        return enlarge(path.read_bytes())
    except OSError as error:
        raise AcfError(f"{path} cannot be read: {error.strerror or error}; {remedy}") from None
    except ValueError as error:
        raise AcfError(f"{path} is damaged ({error}); {remedy}") from None


def _read(project: Project, name: str, run: Run, section: AnalysisSection) -> tuple[AnalysedModel, AnalysisFile]:
    folder, command = project.analyses(run), f"acf {name} {run.options}"
    path = folder / f"{name}.json"
    content, _ = read_measured(project, run, name, path, AnalysisFile, analysis=name)
    check_found(name, content, path, command)
    picture = read_picture(folder / f"{name}.png", f"run: {command}") if section.has_picture else None
    return AnalysedModel(run, part_of(name).form.model_validate(content.found), content.settings, picture), content
