"""The sections of a report on what the analyses found."""

from collections.abc import Mapping
from pathlib import Path

from acf.errors import AcfError
from acf.registry import SECTIONS
from acf.reporting.analysis_files import part_of, read_analysis
from acf.reporting.figures import enlarge
from acf.reporting.result_files import read_result
from acf.reporting.schemas import TrainedModel
from acf.reporting.section import AnalysedModel, Section
from acf.settings.analysis_config import AnalysisSection
from acf.settings.params import Run
from acf.stages.project import Project


def analysis_sections(project: Project, experiment: str, bases: Mapping[str, str | None]) -> list[Section]:
    """Return the section of each analysis of an experiment, in the order of the registry.

    Raises:
        AcfError: a file is missing or damaged; names it and the command that writes it again.
    """
    analysed = project.params.analysed(experiment)
    settings = dict(project.params.analyses(experiment))
    sections = []
    for name in SECTIONS:
        models: dict[str, list[AnalysedModel]] = {variant: [] for variant in project.params.variants(experiment)}
        for other, run in analysed:
            if other == name:
                models[run.variant].append(_read(project, name, run, settings[name]))
        sections.append(part_of(name).section(models, bases))
    return sections


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


def _read(project: Project, name: str, run: Run, section: AnalysisSection) -> AnalysedModel:
    dataset = project.params.dataset(run.experiment)
    model = read_result(project.training_record(run), TrainedModel, run.identity(dataset), f"acf train {run.options}")
    folder = project.analyses(run)
    content = read_analysis(folder / f"{name}.json", name, run, dataset, model.recipe)
    picture = None
    if section.has_picture:
        picture = read_picture(folder / f"{name}.png", f"run: acf {name} {run.options}")
    return AnalysedModel(run, part_of(name).form.model_validate(content.found), content.settings, picture)
