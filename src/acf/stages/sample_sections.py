"""The sections of a report on what the stage `sample` has drawn."""

from acf.errors import AcfError
from acf.reporting.result_files import read_result
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import TrainedModel
from acf.reporting.section import Section
from acf.reporting.sections.sample_section import SampledModel, sample_sections
from acf.settings.params import Run
from acf.stages.analysis_sections import read_picture
from acf.stages.project import SAMPLE_FILES, SAMPLES_RECORD, Project


def sampled_sections(project: Project, experiment: str) -> list[Section]:
    """Return the sections on samples, temperatures, nearest training images and reconstructions.

    The pictures are those of each variant's first seed, the numbers those of all.

    Raises:
        AcfError: a file is missing or damaged, or of another training than the model's; names it and the command that
            writes it again.
    """
    models: dict[str, list[SampledModel]] = {variant: [] for variant in project.params.variants(experiment)}
    for run in project.params.runs(experiment):
        models[run.variant].append(_read(project, run, pictured=not models[run.variant]))
    return sample_sections(models)


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
