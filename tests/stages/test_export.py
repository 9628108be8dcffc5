"""`acf export`: what is in the folder, where its numbers come from, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import acf
from acf.errors import AcfError, DataError, NotContractiveError, UnwritableError
from acf.flows.record import CARD, CONFIG, HASHES, WEIGHTS, read_record
from acf.reporting.wording import bound, count, duration, scientific, with_error
from acf.settings.params import Run
from acf.stages.evaluate import evaluate
from acf.stages.export import export
from tests.flows.publishing.conftest import unprove
from tests.test_cli import in_process

RUN = Run("digits", "acf-l2", 0)


@pytest.fixture(scope="module")
def evaluated(trained: Path) -> Path:
    evaluate(*RUN, "cpu", trained)
    return trained


@pytest.fixture
def project(evaluated: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(evaluated, tmp_path / "project")


def metrics_of(project: Path) -> Path:
    return project / "results/digits/acf-l2/seed0/metrics.json"


def test_a_folder_is_loaded_without_the_project(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evaluated)
    folder = tmp_path / "out" / "model"
    assert in_process(monkeypatch, "export", *RUN.options.split(), "--to", str(folder)) == 0
    said = capsys.readouterr().out
    assert f"acf.load({str(folder)!r}) loads it" in said
    assert "the licence of the weights is not stated" in said
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, CARD}

    flow, trained = acf.Flow.from_pretrained(folder), acf.load(evaluated / "models" / RUN.folder)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(flow.transform(x), trained.transform(x))
    record = read_record(folder)
    before = read_record(evaluated / "models" / RUN.folder)
    assert {key: record[key] for key in before if key != "sha256"} == {k: v for k, v in before.items() if k != "sha256"}
    assert record["metrics"] == json.loads(metrics_of(evaluated).read_text())
    assert record["data"]["licence"] == "CC BY 4.0"
    assert record["data"]["counts"] == {"train": 1500, "test": 297}


def test_every_number_of_the_card_is_of_the_result_files(evaluated: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    export(RUN, tmp_path / "model", licence="mit", root=evaluated)
    text = (tmp_path / "model" / CARD).read_text()
    metrics = json.loads(metrics_of(evaluated).read_text())
    for cell in (
        with_error(metrics["bits_per_dim"], metrics["bits_per_dim_se"]),
        bound(metrics["certificate"]["worst"]),
        scientific(metrics["reconstruction_error"]),
        count(metrics["parameters"]),
        *(f"| {block['name']} | {bound(block['upper'])} |" for block in metrics["certificate"]["blocks"]),
        *(metrics["recipe"], metrics["train_recipe"], metrics["versions"]["torch"], metrics["device"]),
        "24 test images and 2 draws",
        "Alpaydin",
        "with `l2` self-attention: a density of images of shape 1 x 8 x 8 with 17 levels",
    ):
        assert cell in text, cell
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    assert rows["steps"] == rows["weights of step"] == "12"
    assert rows["training images held out for validation"] == "20"
    assert rows["images"] == "1,500 train, 297 test"
    assert rows["licence"] == "CC BY 4.0"
    data = ModelCard.load(tmp_path / "model" / CARD).data
    assert (data.library_name, data.license, data.datasets) == ("acf", "mit", ["digits"])
    results = {result.metric_type: result for result in data.eval_results}
    assert results["bits_per_dim"].metric_value == metrics["bits_per_dim"]
    assert results["bits_per_dim"].dataset_split == "test"
    assert results["lipschitz_bound"].metric_value == metrics["certificate"]["worst"]


def test_seconds_on_the_card_are_those_of_the_training(project: Path, tmp_path: Path) -> None:
    """Where a training was repeated and came to the same weights, metrics.json still has those of the first."""
    folder = project / "models" / RUN.folder
    record = {key: value for key, value in read_record(folder).items() if key not in ("model", HASHES)}
    acf.save(acf.load(folder), folder, record | {"train_seconds": 7777.0, "device": "abacus"})
    export(RUN, tmp_path / "model", root=project)
    text = (tmp_path / "model" / CARD).read_text()
    assert f"| time | {duration(7777.0)} |" in text
    assert "| device | abacus |" in text


def test_it_says_which_command_is_missing(project: Path, tmp_path: Path) -> None:
    metrics_of(project).unlink()
    with pytest.raises(DataError, match=rf"needs what was measured; run: acf evaluate {RUN.options}"):
        export(RUN, tmp_path / "model", root=project)
    shutil.rmtree(project / "models")
    with pytest.raises(DataError, match=rf"no trained model; run: acf train {RUN.options}"):
        export(RUN, tmp_path / "model", root=project)
    with pytest.raises(AcfError, match="no variant 'glow'"):
        export(RUN._replace(variant="glow"), tmp_path / "model", root=project)
    assert not (tmp_path / "model").exists()


def test_measurements_of_another_model_are_refused(project: Path, tmp_path: Path) -> None:
    metrics = json.loads(metrics_of(project).read_text())
    metrics_of(project).write_text(json.dumps(metrics | {"train_recipe": "0" * 20}))
    with pytest.raises(AcfError, match=r"of another training than the model's; run: acf evaluate"):
        export(RUN, tmp_path / "model", root=project)
    for block in metrics["certificate"]["blocks"]:
        block["upper"] *= 1 - 1e-4
    metrics["certificate"]["worst"] *= 1 - 1e-4
    metrics_of(project).write_text(json.dumps(metrics))
    with pytest.raises(DataError, match=r"of other weights: its certificate is another; run: acf evaluate"):
        export(RUN, tmp_path / "model", root=project)
    assert not (tmp_path / "model").exists()


def test_a_model_without_proof_is_refused(project: Path, tmp_path: Path) -> None:
    model = project / "models" / RUN.folder
    flow = acf.load(model)
    unprove(flow)
    acf.save(flow, model, flow.origin.record)  # type: ignore[union-attr]
    with pytest.raises(NotContractiveError, match="is not proven contractive"):
        export(RUN, tmp_path / "model", root=project)
    assert not (tmp_path / "model").exists()


def test_the_same_again_changes_nothing_and_another_model_is_not_replaced_unasked(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    export(RUN, folder, root=evaluated)
    first = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert capsys.readouterr().out.startswith("wrote ")
    export(RUN, folder, root=evaluated)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == first
    assert capsys.readouterr().out.startswith("is there already: ")
    with pytest.raises(UnwritableError, match=r"has a README.md and a config.json already.*--replace"):
        export(RUN, folder, licence="mit", root=evaluated)
    assert (folder / CARD).read_bytes() == first[CARD][1]
    export(RUN, folder, licence="mit", replace=True, root=evaluated)
    assert 'license: "mit"' in (folder / CARD).read_text()
    assert acf.load(folder).origin.record["licence"] == "mit"  # type: ignore[union-attr]
