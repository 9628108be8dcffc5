"""The audit: its numbers against independent ones, the command on real files, and what it says of a wrong bound."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.cli import main
from acf.data import load as load_images
from acf.errors import ConfigError, DataError, NotContractiveError
from acf.evaluation.block_audit import BlockAudit, attention_weight, audit, summary, token_dependence
from acf.evaluation.likelihood import dequantise
from acf.flows.residual import ResidualBlock
from acf.flows.storage import save
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.join import ChannelSplit, Concatenation, ConvexShare
from acf.registry import ATTENTIONS, JOINS
from acf.reporting.audit_table import markdown
from acf.settings.config import ModelConfig
from acf.settings.params import Params
from acf.stages.audit import audit_models
from acf.stages.evaluate import evaluate

TINY = {
    "shape": (1, 4, 4),
    "levels": 17,
    "blocks": [2],
    "idim": 4,
    "squeeze_first": True,
    "fc_blocks": 1,
    "fc_width": 4,
}


class Mixing(SelfAttention):
    """Values plus `mean` times their mean; not 1-Lipschitz, which the measures need not care about."""

    def __init__(self, channels: int, own: float, mean: float) -> None:
        super().__init__(channels, 1, 1, 0.98, None)
        self.own, self.mean = own, mean

    def core(self, *projected: Tensor) -> Tensor:
        (values,) = projected
        return self.own * values + self.mean * values.mean(-2, keepdim=True)


class Lying(SelfAttention):
    """Values times 500 under the bound of a contraction."""

    def __init__(self, channels: int, heads: int, coefficient: float, head_width: int | None) -> None:
        super().__init__(channels, heads, 1, coefficient, head_width)

    def core(self, *projected: Tensor) -> Tensor:
        return 500 * projected[0]


def tokens(images: int, channels: int, side: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(images, channels, side, side, dtype=torch.float64, generator=draw)


def tiny(attention: dict[str, Any], seed: int = 0) -> acf.Flow:
    torch.manual_seed(seed)
    return acf.build({**TINY, "attention": {"heads": 2, **attention}}).eval()


def pictures(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randint(17, (count, 1, 4, 4), generator=draw).to(torch.uint8)


def jacobian_norms(flow: acf.Flow, images: Tensor) -> list[float]:
    """Per block the largest singular value over images, by a walk through the flow of its own."""
    flow = flow.double()
    x = dequantise(images, 17, torch.Generator().manual_seed(0), torch.float64)
    x, norms = flow.logit.transform(x), []
    for part in flow.bijection.scales[0].bijections:  # type: ignore[union-attr]
        if isinstance(part, ResidualBlock):
            flat = lambda v, g=part.branch, s=x.shape[1:]: g(v.view(1, *s)).flatten()  # noqa: E731
            jacobians = torch.stack([torch.autograd.functional.jacobian(flat, row.flatten()) for row in x])
            norms.append(float(torch.linalg.svdvals(jacobians).max()))
        x = part.transform(x).detach()
    return norms


@pytest.mark.parametrize("kind", ["none", *ATTENTIONS])
def test_local_norm_is_that_of_the_jacobian(kind: str) -> None:
    flow, images = tiny({"kind": kind, "join": "convex"}), pictures(3)
    blocks = audit(flow, images, steps=3)
    assert [block.name for block in blocks] == list(flow.residual_blocks())
    assert [block.local for block in blocks] == pytest.approx(jacobian_norms(flow, images), rel=1e-3)
    assert [block.tokens for block in blocks] == [4, 4, 4]
    assert [block.attention is None for block in blocks] == [kind == "none", kind == "none", True]
    for block in blocks:
        assert 0 < block.local <= block.found <= block.upper < 1
        assert block.ratio == pytest.approx(block.found / block.upper)
        assert (block.dependence is None) == (block.attention is None)


@pytest.mark.parametrize("kind", ["none", "l2"])
def test_layers_of_a_dense_branch_are_not_taken_for_attention(kind: str) -> None:
    torch.manual_seed(0)
    dense = {"branch": "dense", "dense": {"depth": 2, "growth": 4}, "attention": {"kind": kind, "join": "block"}}
    for block in audit(acf.build({**TINY, **dense}).eval(), pictures(3), steps=2):
        assert (block.share, block.weight) == (None, None)


def test_the_flow_is_left_as_it_is_and_the_audit_is_repeatable() -> None:
    flow = tiny({"kind": "l2"}).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    done: list[str] = []
    first = audit(flow, pictures(3), steps=2, on_block=done.append)
    assert flow.training
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert done == list(flow.residual_blocks())
    assert audit(flow, pictures(3), steps=2) == first


@pytest.mark.parametrize("join", [*JOINS, "block"])
def test_share_is_the_learnt_one(join: str) -> None:
    flow = tiny({"kind": "l2", "join": join, "share": 0.3})
    attending = [block for block in audit(flow, pictures(3), steps=2) if block.attention]
    assert len(attending) == 2
    if join == "block":
        assert [(block.share, block.weight) for block in attending] == [(None, None)] * 2
        return
    assert [block.share for block in attending] == pytest.approx([0.3, 0.3], abs=0.1)
    assert all(0 < block.weight < 1 for block in attending if block.weight is not None)
    convex = next((m for m in flow.modules() if isinstance(m, ConvexShare)), None)
    if convex is not None:
        convex.gamma.data.fill_(2.0)
        assert audit(flow, pictures(3), steps=2)[0].share == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5)


def test_weight_of_attention_of_known_size() -> None:
    x = tokens(5, 4, 3)
    inner = Mixing(4, own=3.0, mean=0.0).double()
    gain = float(
        (inner(x) - inner(0 * x)).detach().norm() / x.norm()
    )  # the projections are multiples of orthogonal matrices
    for join, kept, mixed in (
        (ConvexShare(inner, 0.2), 0.8, 0.2),
        (Concatenation(inner, 0.2), math.sqrt(0.8), math.sqrt(0.2)),
    ):
        assert attention_weight(join.double(), x) == pytest.approx(mixed * gain / (kept + mixed * gain), rel=1e-6)
    assert attention_weight(ConvexShare(inner, 0.2).double(), 0 * x) is None
    split = ChannelSplit(inner, passed=2, attended=4).double()
    wide = torch.cat([x[:, :2], x], 1)
    size = float(x[:, :2].sub(x[:, :2].mean((0, 2, 3), keepdim=True)).norm())
    attended = gain * float(x.sub(x.mean((0, 2, 3), keepdim=True)).norm())
    assert attention_weight(split, wide) == pytest.approx(attended / (size + attended), rel=1e-6)


@pytest.mark.parametrize("side", [3, 9])
def test_dependence_is_zero_where_a_token_sees_itself_only(side: int) -> None:
    assert token_dependence(Mixing(4, own=0.5, mean=0.0).double(), tokens(6, 4, side)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("side", [8, 9])
def test_dependence_is_near_one_for_the_mean_of_many_tokens(side: int) -> None:
    measured = token_dependence(Mixing(4, own=0.0, mean=0.5).double(), tokens(150, 4, side))
    assert measured == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("own", "mean"), [(1.0, 4.0), (1.0, 1.0)])
def test_dependence_of_a_mixture_of_independent_tokens(own: float, mean: float) -> None:
    count = 16
    change = mean**2 * (count - 1) / count**2
    spread = own**2 + (2 * own * mean + mean**2) / count
    measured = token_dependence(Mixing(4, own, mean).double(), tokens(200, 4, 4))
    assert measured == pytest.approx(math.sqrt(change / spread), rel=0.07)


def test_dependence_of_a_constant_is_undefined() -> None:
    assert token_dependence(Mixing(4, own=0.0, mean=0.0).double(), tokens(4, 4, 3)) is None


def test_images_are_checked() -> None:
    flow = tiny({"kind": "none"})
    with pytest.raises(DataError, match="at least two"):
        audit(flow, pictures(1))
    with pytest.raises(DataError, match="expected uint8"):
        audit(flow, torch.rand(3, 1, 4, 4))


def test_summary_takes_the_extremes() -> None:
    plain = BlockAudit("a", 4, 0.9, 0.1, 0.3, 1 / 3, None, None, None, None)
    attending = BlockAudit("b", 4, 0.8, 0.2, 0.4, 0.5, "A", 0.25, 0.5, 0.125)
    other = BlockAudit("c", 4, 0.7, 0.15, 0.2, 2 / 7, "A", 0.75, None, 0.375)
    assert summary([plain, attending, other]) == {
        "upper": 0.9,
        "local": 0.2,
        "found": 0.4,
        "ratio": 0.5,
        "share": {"mean": 0.5, "lowest": 0.25, "highest": 0.75},
        "weight": {"mean": 0.5, "lowest": 0.5, "highest": 0.5},
        "dependence": {"mean": 0.25, "lowest": 0.125, "highest": 0.375},
    }
    assert summary([plain])["share"] is None


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained study, without results."""
    return shutil.copytree(trained, tmp_path / "project", ignore=shutil.ignore_patterns("results", "docs"))


def tables(root: Path) -> tuple[dict[str, Any], str]:
    path = root / "docs/tables/audit-digits.json"
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_the_command_writes_json_and_its_rendering(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["acf", "audit", "--experiment", "digits", "--images", "4", "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    table, text = tables(project)
    assert text == markdown(table)
    assert text.splitlines()[0] == "# `acf audit --experiment digits --images 4`"
    (model,) = table["models"]
    assert (model["variant"], model["seed"], table["how"]["images"]) == ("acf-l2", 0, 4)
    record = json.loads((project / "models/digits/acf-l2/seed0/config.json").read_text())
    assert model["recipe"] == record["recipe"]
    assert record["recipe"] in text
    flow = acf.load(project / "models/digits/acf-l2/seed0")
    test = load_images("digits", "test", project / "data")[:4]
    assert [BlockAudit(**block) for block in model["blocks"]] == audit(flow, test)
    for block in model["blocks"]:
        assert block["ratio"] <= 1
        assert f"| {block['name']} | {block['tokens']} |" in text
        assert f" {block['found']:.4f} |" in text


def test_bits_per_dim_come_from_the_metrics_of_the_same_training(project: Path) -> None:
    audit_models("digits", images=2, device="cpu", root=project)
    table, text = tables(project)
    assert table["models"][0]["bits_per_dim"] is None
    assert "not available" in text
    evaluate("digits", "acf-l2", 0, "cpu", project)
    path = project / "results/digits/acf-l2/seed0/metrics.json"
    metrics = json.loads(path.read_text())
    audit_models("digits", "acf-l2", 0, 2, "cpu", project)
    table, text = tables(project)
    assert table["command"] == "acf audit --experiment digits --variant acf-l2 --seed 0 --images 2"
    assert table["models"][0]["bits_per_dim"] == metrics["bits_per_dim"]
    assert f"{metrics['bits_per_dim']:.3f} ± {metrics['bits_per_dim_se']:.3f}" in text
    assert "not available" not in text
    path.write_text(json.dumps(metrics | {"train_recipe": "another"}))
    audit_models("digits", images=2, device="cpu", root=project)
    assert tables(project)[0]["models"][0]["bits_per_dim"] is None


def test_missing_models_and_unknown_names(study: Callable[..., Path], project: Path) -> None:
    with pytest.raises(DataError, match=r"no trained model.*acf train --experiment digits"):
        audit_models("digits", device="cpu", root=study())
    with pytest.raises(DataError, match=r"no trained model.*acf-l2/seed3"):
        audit_models("digits", "acf-l2", 3, device="cpu", root=project)
    with pytest.raises(ConfigError, match="no variant 'glow'"):
        audit_models("digits", "glow", device="cpu", root=project)


def saved(root: Path, variant: str) -> acf.Flow:
    model = Params(root / "params.yaml").resolve("digits", variant).model
    flow = acf.build(ModelConfig(**model.model_dump(), shape=(1, 8, 8), levels=17))
    save(flow, root / "models/digits" / variant / "seed0", {"recipe": None})
    return flow


def test_a_wrong_bound_is_named_and_the_command_fails(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ATTENTIONS, "lying", f"{__name__}:{Lying.__name__}")
    root = study(model={"attention": {"kind": "lying", "heads": 2, "every": 2, "join": "convex"}})
    torch.manual_seed(0)
    saved(root, "resflow")
    saved(root, "acf-dot")
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["acf", "audit", "--experiment", "digits", "--images", "2", "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "resflow, seed 0, block scale 1, block 2 " in message
    assert message.count("block scale") == 1
    table, text = tables(root)
    assert text == markdown(table)
    ratios = {(m["variant"], b["name"]): b["ratio"] for m in table["models"] for b in m["blocks"]}
    assert [place for place, ratio in ratios.items() if ratio > 1] == [("resflow", "scale 1, block 2")]


def test_a_model_without_proof_is_named(study: Callable[..., Path]) -> None:
    root = study()
    flow = saved(root, "resflow")
    convolution = flow.residual_blocks()["scale 1, block 2"].branch[-1]
    convolution.weight.data.fill_(math.nan)
    save(flow, root / "models/digits/resflow/seed0")
    with pytest.raises(NotContractiveError, match="resflow/seed0: block scale 1, block 2"):
        audit_models("digits", images=2, device="cpu", root=root)
