"""The sections of a report on what the stage `sample` has drawn."""

from dataclasses import replace

from acf.errors import AcfError
from acf.reporting.page_parts import Section
from acf.reporting.results import Absent
from acf.reporting.rows_file import RowsFile
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.sections.rows_section import row_sections
from acf.reporting.sections.sample_section import FoundForm, SampledModel, sample_sections
from acf.stages.analysis_sections import read_picture
from acf.stages.measured_files import read_measured, why_absent
from acf.stages.project import ROWS_RECORD, SAMPLES_RECORD, Project


def sampled_sections(project: Project, experiment: str) -> tuple[list[Section], list[Absent]]:
    """Return the sections on what was sampled, and what they lack.

    Of images these are samples, temperatures, nearest training images and reconstructions; of vectors samples and
    reconstructions. The pictures are those of each variant's first seed that is there, the numbers those of all.
    """
    if project.params.is_of_images(experiment):
        models, absent = _models(project, experiment, SAMPLES_RECORD, SamplesFile)
        sections = sample_sections(models)
    else:
        of_rows, absent = _models(project, experiment, ROWS_RECORD, RowsFile)
        sections = row_sections(of_rows)
    first, *others = sections or [Section("samples", "Samples")]
    lacking = [f"{one.text}." for one in absent]
    return [replace(first, notes=[*first.notes, *lacking]), *others], absent


def _models(
    project: Project, experiment: str, record: str, form: type[FoundForm]
) -> tuple[dict[str, list[SampledModel[FoundForm]]], list[Absent]]:
    """Return the sampled models of each variant, and those that are missing or damaged, and why."""
    models: dict[str, list[SampledModel[FoundForm]]] = {variant: [] for variant in project.params.variants(experiment)}
    absent: list[Absent] = []
    files = project.sample_files(experiment)
    pictures = [name for name in files if name.endswith(".png")]
    for run in project.params.runs(experiment):
        path, remedy = project.samples(run) / record, f"run: acf sample {run.options}"
        try:
            found, _ = read_measured(project, run, "sample", path, form)
            shown = pictures if not models[run.variant] else []
            seen = {name.removesuffix(".png"): read_picture(path.with_name(name), remedy) for name in shown}
            models[run.variant].append(SampledModel(run, found, seen))
        except AcfError as error:
            written = any((project.samples(run) / name).is_file() for name in files)
            absent.append(why_absent(project, run, "sample", "sampled", written, error))
    return models, absent
