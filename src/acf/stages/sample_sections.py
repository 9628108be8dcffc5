"""The sections of a report on what the stage `sample` wrote."""

from pathlib import Path

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


def sections_of_samples(project: Project, experiment: str) -> tuple[list[Section], list[Absent]]:
    """Return the sections on samples, and the models that have none, with the reason."""
    models: dict[str, list[SampledModel]] = {variant: [] for variant in project.params.variants(experiment)}
    absent = []
    for run in project.params.runs(experiment):
        folder = project.samples(run)
        if not all((folder / name).is_file() for name in SAMPLE_FILES):
            absent.append(Absent(run, "sample", f"no samples; run: acf sample {run.options}"))
            continue
        try:
            models[run.variant].append(_read(project, run))
        except AcfError as error:
            absent.append(Absent(run, "sample", f"damaged: {error}"))
    sections = sample_sections(models)
    if absent:
        sentences = [f"{one.run.variant}, seed {one.run.seed}: {one.why}." for one in absent]
        sections.append(Section("without-samples", "Models without samples", sentences))
    return sections, absent


def _read(project: Project, run: Run) -> SampledModel:
    command = f"acf sample {run.options}"
    identity = run.identity(project.params.dataset(run.experiment))
    path = project.samples(run) / SAMPLES_RECORD
    found = read_result(path, SamplesFile, identity, command)
    model = read_result(project.training_record(run), TrainedModel, identity, f"acf train {run.options}")
    if found.train_recipe != model.recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    names = [name for name in SAMPLE_FILES if name != SAMPLES_RECORD]
    pictures = {Path(name).stem: read_picture(path.with_name(name), f"run: {command}") for name in names}
    return SampledModel(run, found, pictures)
