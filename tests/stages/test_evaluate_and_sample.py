"""The stages `evaluate` and `sample` on a trained model, with real files."""

import json
import math
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import acf
from acf.data import read_manifest
from acf.errors import AcfError, DataError, NotContractiveError
from acf.evaluation.grids import grey, tile
from acf.evaluation.metrics import evaluate_flow
from acf.evaluation.reconstruction import largest_reconstruction_error
from acf.lipschitz import L2SelfAttention, NormalisedConv2d
from acf.lipschitz.layer import LipschitzLayer
from acf.reporting.image_table import read_image_table
from acf.settings.config import EvaluationConfig
from acf.settings.params import Run
from acf.stages.evaluate import evaluate
from acf.stages.project import Project
from acf.stages.sample import computation as sample_computation
from acf.stages.sample import sample

REQUIRED = {
    "bits_per_dim",
    "bits_per_dim_se",
    "parameters",
    "certificate",
    "reconstruction_error",
    "test_images",
    "draws",
    "train_seconds",
    "train_steps",
    "device",
    "recipe",
    "parts",
}


def test_metrics_hold_what_the_contract_names(trained: Path) -> None:
    evaluate("digits", "acf-l2", 0, "cpu", trained)
    path = trained / "results/digits/acf-l2/seed0/metrics.json"
    metrics = json.loads(path.read_text())
    assert metrics.keys() >= REQUIRED
    table = path.parents[4] / "analyses/digits/acf-l2/seed0/images.csv"
    means = {"bits_per_dim": metrics["bits_per_dim"]} | metrics["parts"]
    del means["dequantisation"]
    each = read_image_table(table, path, means, 24, metrics["images_sha256"], "")
    for name, mean in means.items():
        assert each[name].mean() == pytest.approx(mean, abs=1e-9)
    assert each["bits_per_dim"].std(ddof=1) / math.sqrt(24) == pytest.approx(metrics["bits_per_dim_se"], abs=1e-9)
    parts = each["log_prob_z"] + each["log_abs_det"] + metrics["parts"]["dequantisation"]
    assert parts == pytest.approx(each["bits_per_dim"], abs=1e-9)
    assert metrics["test_images"] == 24
    assert metrics["draws"] == 2
    assert metrics["certificate"]["worst"] < 1
    assert 0 < metrics["reconstruction_error"] < 1e-4
    assert metrics["forward_error"] == 0
    assert sum(metrics["parts"].values()) == pytest.approx(metrics["bits_per_dim"], abs=1e-9)
    flow = acf.load(trained / "models/digits/acf-l2/seed0")
    assert metrics["parameters"] == sum(p.numel() for p in flow.parameters())
    first = {file: file.read_bytes() for file in (path, table)}
    for lost in first:
        lost.unlink()
        evaluate("digits", "acf-l2", 0, "cpu", trained)
        assert {file: file.read_bytes() for file in first} == first


def test_pictures_show_samples_and_reconstructions(trained: Path) -> None:
    sample("digits", "acf-l2", 0, "cpu", trained)
    folder = trained / "samples/digits/acf-l2/seed0"
    samples = np.asarray(Image.open(folder / "samples.png"))
    assert samples.shape == (3 * 9 + 1, 3 * 9 + 1)
    pairs = np.asarray(Image.open(folder / "reconstructions.png"))
    assert pairs.shape == (2 * 9 + 1, 4 * 9 + 1)
    assert (pairs[1:9] == pairs[10:18]).mean() > 0.99
    assert len(np.unique(pairs)) > 5
    assert np.asarray(Image.open(folder / "temperatures.png")).shape == (2 * 9 + 1, 3 * 9 + 1)
    assert np.asarray(Image.open(folder / "nearest.png")).shape == (2 * 9 + 1, 3 * 9 + 1)
    record = json.loads((folder / "samples.json").read_text())
    assert [row["temperature"] for row in record["temperatures"]] == [1.0, 0.7]
    assert len(record["nearest"]["samples"]["distances"]) == 9
    assert len(record["reconstructions"]["largest"]) == 4
    with Image.open(folder / "nearest.png") as picture:
        assert picture.info["recipe"] == record["recipe"]


def test_training_images_count_for_the_pictures(trained: Path) -> None:
    """The nearest ones are shown, so that pictures of other training images are not taken for current."""
    parts = sample_computation(Project(trained), Run("digits", "acf-l2", 0)).parts({})
    assert parts["inputs"].keys() == {"train", "test", "weights", "training"}
    assert parts["inputs"]["train"] == read_manifest("digits", trained / "data").sha256["train"]


def test_same_latent_noise_same_samples(trained: Path) -> None:
    flow = acf.load(trained / "models/digits/acf-l2/seed0")
    first = flow.sample(5, generator=torch.Generator().manual_seed(0))
    again = flow.sample(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first, again)
    assert first.shape == (5, 1, 8, 8)
    assert float(first.min()) >= 0
    assert float(first.max()) < 1


class Expanding(LipschitzLayer):
    """x + 3 A(x) with its honest bound."""

    def __init__(self, attention: L2SelfAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 3 * self.attention(x)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1 + 3 * self.attention.lipschitz_bound(n_tokens)


def test_evaluation_refuses_a_model_that_is_not_contractive(trained: Path) -> None:
    flow = acf.load(trained / "models/digits/acf-l2/seed0")
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert evaluate_flow(flow, images, EvaluationConfig(batch_size=2)).metrics["certificate"]["worst"] < 1
    branch = flow.contractive_blocks()["scale 1, block 1"].branch
    for layer in branch:
        if isinstance(layer, NormalisedConv2d):
            layer.weight.data.mul_(100)  # far above its coefficient, so that normalisation acts
    branch[1] = Expanding(branch[1])
    with pytest.raises(NotContractiveError, match="scale 1, block 1"):
        evaluate_flow(flow, images, EvaluationConfig(batch_size=2))
    with pytest.raises(NotContractiveError, match="scale 1, block 1"):
        flow.sample(1)


def test_missing_and_damaged_models(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json is missing.*acf train"):
        evaluate("digits", "acf-l2", 7, "cpu", trained)
    source = trained / "models/digits/acf-l2/seed0"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        acf.load(tmp_path)
    content = (source / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"model\.safetensors is corrupt or of another model"):
        acf.load(tmp_path)
    record = json.loads((source / "config.json").read_text())
    del record["sha256"]  # as in models of before it was kept
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="corrupt"):
        acf.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert acf.load(tmp_path).config == acf.load(source).config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        acf.load(tmp_path)


@pytest.mark.parametrize("stage", [evaluate, sample])
def test_a_model_is_the_one_its_folder_says(trained: Path, tmp_path: Path, stage: Callable[..., None]) -> None:
    root = tmp_path / "study"
    shutil.copytree(trained, root, ignore=shutil.ignore_patterns("results", "samples"))
    folder = root / "models/digits/acf-l2"
    (folder / "seed0").rename(folder / "seed5")
    path = folder / "seed5/config.json"
    record = json.loads(path.read_text())
    del record["sha256"]  # So that the hash of the record is not what refuses the wrong ones.
    run = r"run: acf train --experiment digits --variant acf-l2 --seed 5$"
    with pytest.raises(AcfError, match=rf"config\.json is of seed 0 instead of 5; {run}"):
        stage("digits", "acf-l2", 5, "cpu", root)
    model = record["model"]
    for wrong, said in {
        "[]": "config.json: Input should be an object",
        json.dumps(record | {"seed": 5, "model": []}): "config.json: model: Input should be",
        json.dumps(record | {"seed": 5, "model": model | {"idim": math.nan}}): "model: it holds NaN or infinity",
        json.dumps(record | {"seed": 5, "model": model | {"idim": -1}}): "config.json: .*idim",
        json.dumps(record | {"seed": 5, "train_seconds": math.inf}): "config.json: train_seconds: ",
        "[" * 100_000: "config.json is not JSON",
    }.items():
        path.write_text(wrong)
        with pytest.raises(AcfError, match=f"{said}.*{run}"):
            stage("digits", "acf-l2", 5, "cpu", root)
        if "train_seconds" not in said:  # which the library does not need
            with pytest.raises(AcfError, match=r"config\.json"):
                acf.load(path.parent)
    assert not (root / "results").exists()
    assert not (root / "samples").exists()


def test_what_a_report_would_refuse_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "study"
    shutil.copytree(trained, root)
    shutil.rmtree(root / "results", ignore_errors=True)
    path = root / "models/digits/acf-l2/seed0/config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: record[key] for key in record if key not in ("train_seconds", "sha256")}))
    with pytest.raises(DataError, match=r"config\.json does not say how long it was trained; run: acf train"):
        evaluate("digits", "acf-l2", 0, "cpu", root)
    path.write_text(json.dumps(record))
    measured = evaluate_flow(acf.load(path.parent), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), EvaluationConfig())
    broken = measured._replace(metrics=measured.metrics | {"reconstruction_error": math.nan})
    monkeypatch.setattr("acf.evaluation.metrics.evaluate_flow", lambda *_: broken)
    shutil.rmtree(root / ".acf")
    with pytest.raises(AcfError, match=r"metrics\.json is not written: .*reconstruction_error: .*finite"):
        evaluate("digits", "acf-l2", 0, "cpu", root)
    assert not (root / "results").exists()


def test_no_flipped_bit_of_a_model_is_read(trained: Path, tmp_path: Path) -> None:
    """A seeded sample of both files' bits, the key of the hashes among them, and files that are empty or none."""
    source = trained / "models/digits/acf-l2/seed0"
    good = {name: (source / name).read_bytes() for name in ("config.json", "model.safetensors")}
    cases = [(name, content) for name in good for content in (b"", b"null", b"[" * 100_000)]
    draw = random.Random(0)
    for name, number in (("config.json", 150), ("model.safetensors", 50)):
        key = 8 * good[name].find(b'"sha256"')
        for bit in [*draw.sample(range(8 * len(good[name])), number), *range(max(key, 0), key + 64)]:
            changed = bytearray(good[name])
            changed[bit // 8] ^= 1 << bit % 8
            cases.append((name, bytes(changed)))
    for name, content in cases:
        for file in good:
            (tmp_path / file).write_bytes(content if file == name else good[file])
        with suppress(ValueError, RecursionError):
            if json.loads(content) == json.loads(good[name]):
                continue  # white space, or 1E-05 for 1e-05
        with pytest.raises(DataError) as caught:
            acf.load(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_bytes(good["config.json"])
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        acf.load(tmp_path)


def test_a_model_without_hashes_is_read(trained: Path, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    source = trained / "models/digits/acf-l2/seed0"
    record = json.loads((source / "config.json").read_text())
    del record["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    assert acf.certify(acf.load(tmp_path)).worst < 1


def test_reconstruction_error_sees_a_broken_inverse(trained: Path) -> None:
    flow = acf.load(trained / "models/digits/acf-l2/seed0").double()
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    assert largest_reconstruction_error(flow, x.split(4)) < 1e-4
    original = flow.preprocessing.inverse
    flow.preprocessing.inverse = lambda y: original(y) + 0.01  # type: ignore[method-assign, assignment]
    assert largest_reconstruction_error(flow, x.split(4)) == pytest.approx(0.01, rel=0.05)


def test_grey_levels_fill_black_to_white() -> None:
    x = (torch.arange(17) + 0.5) / 17
    levels = grey(x, 17)
    assert levels.tolist() == [round(k * 255 / 16) for k in range(17)]
    image = tile(torch.full((3, 3, 2, 2), 7, dtype=torch.uint8), 2)
    assert image.size == (7, 7)
    assert np.asarray(image)[1, 1].tolist() == [7, 7, 7]
