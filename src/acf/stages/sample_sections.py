"""The sections of a report on what the stage `sample` has drawn."""

from dataclasses import replace

from acf.errors import AcfError
from acf.reporting.page_parts import Section
from acf.reporting.result_files import read_result
from acf.reporting.results import Absent
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import TrainedModel
from acf.reporting.sections.sample_section import SampledModel, sample_sections
from acf.settings.params import Run
from acf.stages.analysis_sections import read_picture
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
            absent.append(_absent(project, run, error))
    sections = sample_sections(models) or [Section("samples", "Samples")]
    lacking = [f"{one.run.variant}, seed {one.run.seed}: {one.why}." for one in absent]
    return [replace(sections[0], notes=[*sections[0].notes, *lacking]), *sections[1:]], absent


def _absent(project: Project, run: Run, error: AcfError) -> Absent:
    if not project.training_record(run).is_file():
        return Absent(run, "sample", f"not trained; run: acf train {run.options}")
    if not any((project.samples(run) / name).is_file() for name in SAMPLE_FILES):
        return Absent(run, "sample", f"not sampled; run: acf sample {run.options}")
    return Absent(run, "sample", f"damaged: {error}")


def _read(project: Project, run: Run, pictured: bool) -> SampledModel:
    identity, command = run.identity(project.params.dataset(run.experiment)), f"acf sample {run.options}"
    path = project.samples(run) / SAMPLES_RECORD
    found = read_result(path, SamplesFile, identity, command)
    model = read_result(project.training_record(run), TrainedModel, identity, f"acf train {run.options}")
    if found.train_recipe != model.recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    pictures = [name for name in SAMPLE_FILES if name.endswith(".png")] if pictured else []
    return SampledModel(
        run,
        found,
        {name.removesuffix(".png"): read_picture(path.with_name(name), f"run: {command}") for name in pictures},
    )
