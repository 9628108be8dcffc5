"""The sections of a report on what the stage `sample` has drawn."""

from dataclasses import replace

from acf.errors import AcfError
from acf.reporting.result_files import read_result
from acf.reporting.results import Absent
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import TrainedModel
from acf.reporting.section import Section
from acf.reporting.sections.sample_section import SampledModel, sample_sections
from acf.settings.params import Run
from acf.stages.analysis_sections import read_picture
from acf.stages.project import SAMPLE_FILES, SAMPLES_RECORD, Project


def sampled_sections(project: Project, experiment: str) -> tuple[list[Section], list[Absent]]:
    """Return the sections on samples, temperatures, nearest training images and reconstructions, and what is not there.

    The pictures are those of each variant's first seed that has any, the numbers those of all. The first section says
    of which models they are missing or damaged.
    """
    models: dict[str, list[SampledModel]] = {variant: [] for variant in project.params.variants(experiment)}
    absent: list[Absent] = []
    for run in project.params.runs(experiment):
        if not (project.samples(run) / SAMPLES_RECORD).is_file():
            absent.append(Absent(run, "sample", f"no samples; run: acf sample {run.options}"))
            continue
        try:
            models[run.variant].append(_read(project, run, pictured=not models[run.variant]))
        except AcfError as error:
            absent.append(Absent(run, "sample", f"damaged: {error}"))
    first, *others = sample_sections(models) or [Section("samples", "Samples")]
    said = [f"{one.run.variant}, seed {one.run.seed}: {one.why}." for one in absent]
    return [replace(first, notes=[*first.notes, *said]), *others], absent


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
