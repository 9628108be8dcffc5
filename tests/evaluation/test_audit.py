"""The audit: its numbers against independent ones, the stage on real files, and what it says of a wrong bound."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.data import load as load_images
from acf.errors import DataError, NotContractiveError
from acf.evaluation.analyses.audit import attention_weight, audit_blocks, token_dependence
from acf.evaluation.likelihood import dequantise
from acf.flows.residual import ResidualBlock
from acf.flows.storage import load, save
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.join import ChannelSplit, Concatenation, ConvexShare
from acf.registry import ATTENTIONS, JOINS
from acf.settings.config import ModelConfig
from acf.settings.params import Params, Run
from acf.stages.analyse import analyse

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
    x, norms = flow.preprocessing.transform(x), []
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
    blocks = audit_blocks(flow, images, steps=3)
    assert [block.name for block in blocks] == list(flow.contractive_blocks())
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
    for block in audit_blocks(acf.build({**TINY, **dense}).eval(), pictures(3), steps=2):
        assert (block.share, block.weight) == (None, None)


def test_the_flow_is_left_as_it_is_and_the_audit_is_repeatable() -> None:
    flow = tiny({"kind": "l2"}).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    first = audit_blocks(flow, pictures(3), steps=2)
    assert flow.training
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert audit_blocks(flow, pictures(3), steps=2) == first


@pytest.mark.parametrize("join", [*JOINS, "block"])
def test_share_is_the_learnt_one(join: str) -> None:
    flow = tiny({"kind": "l2", "join": join, "share": 0.3})
    attending = [block for block in audit_blocks(flow, pictures(3), steps=2) if block.attention]
    assert len(attending) == 2
    if join == "block":
        assert [(block.share, block.weight) for block in attending] == [(None, None)] * 2
        return
    assert [block.share for block in attending] == pytest.approx([0.3, 0.3], abs=0.1)
    assert all(0 < block.weight < 1 for block in attending if block.weight is not None)
    convex = next((m for m in flow.modules() if isinstance(m, ConvexShare)), None)
    if convex is not None:
        convex.gamma.data.fill_(2.0)
        assert audit_blocks(flow, pictures(3), steps=2)[0].share == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5)


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
        audit_blocks(flow, pictures(1), steps=1)
    with pytest.raises(DataError, match="expected uint8"):
        audit_blocks(flow, torch.rand(3, 1, 4, 4), steps=1)


def saved(root: Path, variant: str) -> acf.Flow:
    model = Params(root / "params.yaml").resolve("digits", variant).model
    flow = acf.build(ModelConfig(**model.model_dump(), shape=(1, 8, 8), levels=17))
    save(flow, root / "models/digits" / variant / "seed0", {"recipe": None})
    return flow


def audited(root: Path) -> dict[str, Any]:
    return json.loads((root / "analyses/digits/resflow/seed0/audit.json").read_text())


def test_a_wrong_bound_fails_the_stage_whenever_it_is_called_and_no_number_is_lost(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTENTIONS, "lying", f"{__name__}:{Lying.__name__}")
    root = study(model={"attention": {"kind": "lying", "heads": 2, "every": 2, "join": "convex"}})
    torch.manual_seed(0)
    saved(root, "resflow")
    run = Run("digits", "resflow", 0)
    told = r"resflow, seed 0: a proven bound is refuted: block scale 1, block 2 \(a gain of .*audit.json"
    with pytest.raises(NotContractiveError, match=told):
        analyse("audit", run, "cpu", root)
    found = audited(root)
    ratios = {block["name"]: block["ratio"] for block in found["found"]["blocks"]}
    assert [name for name, ratio in ratios.items() if ratio > 1] == ["scale 1, block 2"]
    shutil.rmtree(root / "analyses")  # as engines do with what a stage that failed has written
    monkeypatch.setattr("acf.evaluation.analyses.audit.audit_blocks", None)
    with pytest.raises(NotContractiveError, match=told):
        analyse("audit", run, "cpu", root)
    assert audited(root) == found


def test_a_model_without_proof_is_named(study: Callable[..., Path]) -> None:
    root = study()
    flow = saved(root, "resflow")
    convolution = flow.contractive_blocks()["scale 1, block 2"].branch[-1]
    convolution.weight.data.fill_(math.nan)
    save(flow, root / "models/digits/resflow/seed0")
    with pytest.raises(NotContractiveError, match="block scale 1, block 2"):
        analyse("audit", Run("digits", "resflow", 0), "cpu", root)


def test_the_stage_writes_what_the_audit_finds(trained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(trained, tmp_path / "project", ignore=shutil.ignore_patterns("analyses"))
    analyse("audit", Run("digits", "acf-l2", 0), "cpu", root)
    content = json.loads((root / "analyses/digits/acf-l2/seed0/audit.json").read_text())
    flow = load(root / "models/digits/acf-l2/seed0")
    images = load_images("digits", "test", root / "data", 17)[:2]
    assert content["found"]["images"] == 2
    assert content["found"]["blocks"] == [asdict(block) for block in audit_blocks(flow, images, steps=1)]
    assert content["refuted"] == ""
