"""`acf export`: a trained and evaluated model in a folder of its own, which needs no project around it."""

import json
import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acf.data import read_manifest
from acf.data.sources.registered import dataset_source
from acf.errors import DataError
from acf.flows.publishing.model_folder import write_model_folder
from acf.flows.publishing.plain_card import LICENCE_UNKNOWN
from acf.flows.record import CARD, HASHES, read_record
from acf.reporting.model_card import DataFacts, model_card
from acf.reporting.schemas import Metrics
from acf.settings.params import Run
from acf.stages.measured_files import read_metrics
from acf.stages.project import Project

if TYPE_CHECKING:
    from acf.flows.certificate import Certificate

ROUNDING = 1e-6
"""Largest relative difference of a bound that other machines compute from the same weights."""


def export(
    run: Run, folder: Path, licence: str = LICENCE_UNKNOWN, replace: bool = False, root: Path = Path(".")
) -> None:
    """Write weights, config.json and a model card of one model into `folder`, for `acf.load` without a project.

    config.json has what the training wrote, and besides `data`, `metrics` (all of metrics.json) and `licence`.

    Args:
        run: the model.
        folder: made if missing; other files in it stay.
        licence: of the weights, as the Hub names it.
        replace: whether files of these names with another content may be replaced.
        root: the project's top folder.

    Raises:
        NotContractiveError: a block is not proven contractive; names it.
        DataError: the model is missing, damaged or not evaluated; the message has the command.
        UnwritableError: there are other files of these names, or a file cannot be written.
        AcfError: bad configuration, or a file of the model is of another training.
    """
    project = Project(root)
    project.params.resolve(run.experiment, run.variant)
    files = exported_files(project, run, licence)
    changed = write_model_folder(folder, files, replace)
    size = sum(map(len, files.values())) / 1e6
    print(f"{'wrote' if changed else 'is there already:'} {folder} ({size:.1f} MB); acf.load({str(folder)!r}) loads it")
    if licence == LICENCE_UNKNOWN:
        print("the licence of the weights is not stated; --licence mit, for example, states it")


def exported_files(project: Project, run: Run, licence: str) -> dict[str, bytes]:
    """Return the files of a model that is exported, by name; errors as for `export`."""
    from acf.flows.flow import certify
    from acf.flows.storage import load, serialise

    path = project.metrics(run)
    flow = load(project.model(run)) if project.training_record(run).exists() else None
    if flow is None:
        raise DataError(f"{project.model(run)} holds no trained model; run: acf train {run.options}")
    if not path.exists():
        raise DataError(f"{path} is missing, and a card needs what was measured; run: acf evaluate {run.options}")
    metrics, trained = read_metrics(project, run)
    certificate = certify(flow)
    certificate.require()
    _require_same(certificate, metrics, path, run)
    stored = read_record(project.model(run))
    record: dict[str, Any] = {key: value for key, value in stored.items() if key not in ("model", HASHES)}
    facts = _facts(project, run.experiment)
    record |= {"data": asdict(facts), "metrics": json.loads(path.read_bytes()), "licence": licence}
    training = stored["training"] if isinstance(stored.get("training"), dict) else {}
    card = model_card(trained, training, metrics, facts, licence, version("acf"))
    return {**serialise(flow, record), CARD: card.encode()}


def _facts(project: Project, experiment: str) -> DataFacts:
    dataset, prepared = project.params.dataset(experiment), project.params.prepared(experiment)
    manifest, source = read_manifest(prepared, project.data), dataset_source(prepared)
    origin = "; ".join(filter(None, [manifest.source, project.params.seen(experiment).made, source.remark]))
    counts = {str(split): count for split, count in manifest.counts.items()}
    columns = None if manifest.columns is None else [column.model_dump() for column in manifest.columns]
    return DataFacts(dataset, origin, source.licence, source.citation, counts, columns)


def _require_same(certificate: "Certificate", metrics: Metrics, path: Path, run: Run) -> None:
    """Check that what was measured is of these weights, as far as their certificate tells.

    Raises:
        DataError: the certificates differ.
    """
    found = {block.name: block.upper for block in certificate.blocks}
    stored = {block.name: block.upper for block in metrics.certificate.blocks}
    same = found.keys() == stored.keys() and all(
        math.isclose(found[name], stored[name], rel_tol=ROUNDING) for name in found
    )
    if not same:
        raise DataError(f"{path} is of other weights: its certificate is another; run: acf evaluate {run.options}")
