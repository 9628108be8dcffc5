"""The stage `sample`: samples, reconstructions and nearest training images, as pictures and in numbers.

Of a model of vectors it writes samples as a table in its units, and a picture of the pairs of columns.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acf.data import read_manifest
from acf.data.prepared.manifest import SPLITS, Manifest
from acf.data.prepared.seen import average_between
from acf.flows.record import weights_hash
from acf.reporting.result_files import require_form
from acf.reporting.rows_file import RowsFile, rows_csv
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import OfModel
from acf.runs.device import describe_device
from acf.runs.leases import leased_device
from acf.runs.store import RunStore
from acf.settings.config import SamplingConfig, model_config_from
from acf.settings.params import Run
from acf.settings.work import work
from acf.stages.cached import Computation, Outputs, json_bytes
from acf.stages.project import PAIRS, ROWS, ROWS_RECORD, SAMPLES_RECORD, Project
from acf.stages.trained import model_inputs, read_trained

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from acf.flows.flow import Flow


def sample(experiment: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Write pictures of samples and reconstructions, and samples.json, to samples/<experiment>/<variant>/seed<seed>.

    All variants and seeds start from the same latent noise, at every temperature. The reconstructions are test images
    above f^-1(f(x)). Of vectors it writes pairs.png, rows.csv and rows.json.

    Raises:
        NotContractiveError: a block is not proven contractive, so the flow is not inverted.
        AcfError: bad configuration, missing data or model.
    """
    computation(Project(root), Run(experiment, variant, seed), device).restore_or_compute(root)


def computation(
    project: Project, run: Run, device: str = "auto", weights: Callable[[Path], str] = weights_hash
) -> Computation:
    """Return the pictures of the model of `run`, which are not drawn yet.

    Args:
        project: where everything is.
        run: the model.
        device: as for `sample`.
        weights: how the hash of the weights in a model's folder is had.

    Raises:
        AcfError: bad configuration, missing data or model.
    """
    settings = project.params.resolve(run.experiment, run.variant)
    manifest = read_manifest(project.params.prepared(run.experiment), project.data)
    config = settings.sampling
    model, folder = project.model(run), project.samples(run)
    record = read_trained(project, run)
    identity = run.identity(project.params.dataset(run.experiment))

    def compute(store: RunStore) -> Outputs:
        with leased_device(device) as place:
            return draw(place, store.recipe)

    def draw(place: "torch.device", recipe: str) -> Outputs:
        import torch

        from acf.evaluation.grids import png
        from acf.flows.storage import load

        flow = load(model, place)
        print(f"sample {run.folder.as_posix()}", flush=True)
        started = time.perf_counter()
        drawn = (
            _images(flow, project, manifest, config)
            if manifest.is_of_images
            else _rows(flow, project, manifest, config)
        )
        content = {
            **identity,
            "settings": config.model_dump(mode="json"),
            **drawn.numbers,
            "seconds": round(time.perf_counter() - started, 3),
            "device": describe_device(place),
            "train_recipe": record.recipe,
            "recipe": recipe,
            "versions": {"acf": version("acf"), "torch": torch.__version__},
        }
        require_form(content, drawn.form, folder / drawn.record)
        files = {f"{name}.png": png(picture, recipe=recipe) for name, picture in drawn.pictures.items()}
        return Outputs({**files, **drawn.tables, drawn.record: json_bytes(content)})

    # Rows are written in the units of the table, which the tensors do not tell.
    columns = {"columns": [column.model_dump() for column in manifest.columns]} if manifest.columns else {}
    return Computation(
        stage="sample",
        settings={**identity, "sampling": config.model_dump(mode="json"), "model": record.model, **columns},
        inputs={**{split: manifest.sha256[split] for split in SPLITS}, **model_inputs(record, weights(model))},
        paths=[folder / name for name in project.sample_files(run.experiment)],
        work=work(settings, "sample", model_config_from(record.model).shape),
        compute=compute,
    )


@dataclass(frozen=True)
class _Drawn:
    """What was drawn of a model: pictures by name, tables by file name, and numbers in a form, the file they go to."""

    pictures: Mapping[str, "Image.Image"]
    numbers: Mapping[str, Any]
    form: type[OfModel]
    record: str
    tables: Mapping[str, bytes] = field(default_factory=dict)


def _images(flow: "Flow", project: Project, manifest: Manifest, config: SamplingConfig) -> _Drawn:
    from acf.data import load
    from acf.evaluation.sampled import sampled

    levels, average = flow.config.levels, average_between(manifest.shape, flow.shape)
    train, test = (load(manifest.dataset, split, project.data, levels, average) for split in SPLITS)
    pictures, numbers = sampled(flow, train, test, config)
    return _Drawn(pictures, numbers, SamplesFile, SAMPLES_RECORD)


def _rows(flow: "Flow", project: Project, manifest: Manifest, config: SamplingConfig) -> _Drawn:
    from acf.data.prepared.tensors import load_vectors
    from acf.evaluation.pairs import pairs
    from acf.evaluation.sampled_rows import sampled_rows

    columns = manifest.columns or []
    found = sampled_rows(flow, load_vectors(manifest.dataset, "test", project.data), columns, config)
    names = [column.name for column in columns]
    table = rows_csv(names, found.samples.tolist())
    numbers = {**found.numbers, "rows_sha256": hashlib.sha256(table).hexdigest()}
    picture = pairs(found.test, found.samples, names)
    return _Drawn({PAIRS.removesuffix(".png"): picture}, numbers, RowsFile, ROWS_RECORD, {ROWS: table})
