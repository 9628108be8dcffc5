"""The sections of a report on what the stage `sample` has drawn."""

from dataclasses import replace

from acf.errors import AcfError
from acf.reporting.page_parts import Section
from acf.reporting.results import Absent
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.sections.sample_section import SampledModel, sample_sections
from acf.settings.params import Run
from acf.stages.analysis_sections import read_picture
from acf.stages.measured_files import read_measured, why_absent
from acf.stages.project import SAMPLE_FILES, SAMPLES_RECORD, Project


def sampled_sections(project: Project, experiment: str) -> tuple[list[Section], list[Absent]]:
    """Return the sections on samples, temperatures, nearest training images and reconstructions, and what they lack.

    The pictures are those of each variant's first seed that is there, the numbers those of all.
    """
    models: dict[str, list[SampledModel]] = {variant: [] for variant in project.params.variants(experiment)}
    absent: list[Absent] = []
    for run in project.params.runs(experiment):
        try:
            models[run.variant].append(_read(project, run, pictured=not models[run.variant]))
        except AcfError as error:
            written = any((project.samples(run) / name).is_file() for name in SAMPLE_FILES)
            absent.append(why_absent(project, run, "sample", "sampled", written, error))
    sections = sample_sections(models) or [Section("samples", "Samples")]
    lacking = [f"{one.text}." for one in absent]
    return [replace(sections[0], notes=[*sections[0].notes, *lacking]), *sections[1:]], absent


def _read(project: Project, run: Run, pictured: bool) -> SampledModel:
    path, remedy = project.samples(run) / SAMPLES_RECORD, f"run: acf sample {run.options}"
    found, _ = read_measured(project, run, "sample", path, SamplesFile)
    pictures = [name for name in SAMPLE_FILES if name.endswith(".png")] if pictured else []
    return SampledModel(
        run,
        found,
        {name.removesuffix(".png"): read_picture(path.with_name(name), remedy) for name in pictures},
    )
