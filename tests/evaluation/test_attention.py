"""Weights of attention: those that flows use, and their distances and entropies where these are known."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.data.prepared.tensors import Images
from acf.evaluation.analyses import attention as module
from acf.evaluation.analyses.attention import attention, attentions, chunks
from acf.evaluation.analysis import Analysed
from acf.lipschitz.attention.self_attention import SelfAttention, merge_heads, to_maps
from acf.registry import ATTENTIONS, JOINS
from acf.settings.analysis_config import AttentionMapsConfig
from acf.settings.config import EvaluationConfig

TINY = {"shape": (1, 4, 6), "levels": 17, "blocks": [2], "idim": 4, "fc_blocks": 0}
"""Flows with maps of 4 x 6 positions."""
CONFIG = AttentionMapsConfig(images=5, shown_images=2, queries=((0.5, 0.5), (0.0, 1.0)))


class Fixed(SelfAttention):
    """Attention whose weights do not depend on the image."""

    weights: Tensor

    def __init__(self, channels: int, heads: int, coefficient: float, head_width: int | None) -> None:
        super().__init__(channels, heads, 1, coefficient, head_width)

    def weights_and_values(self, *projected: Tensor, heads: slice = slice(None)) -> tuple[Tensor, Tensor]:
        (values,) = projected
        return self.weights.to(values).expand(*values.shape[:2], -1, -1)[:, heads], values[:, heads]


class Own(Fixed):
    weights = torch.eye(24)


class Even(Fixed):
    weights = torch.full((24, 24), 1 / 24)


class Next(Fixed):
    """Every position looks at the next one in its row, the last one of a row at the first."""

    weights = torch.eye(24).view(4, 6, 4, 6).roll(1, 3).reshape(24, 24)


class Silent(SelfAttention):
    """Attention that has no weights."""

    def __init__(self, channels: int, heads: int, coefficient: float, head_width: int | None) -> None:
        super().__init__(channels, heads, 1, coefficient, head_width)

    def core(self, *projected: Tensor) -> Tensor:
        return projected[0].sin()


def made(**attention_settings: Any) -> acf.Flow:
    torch.manual_seed(0)
    flow = acf.build({**TINY, "attention": {"heads": 2, "every": 1, **attention_settings}})
    flow.train()
    flow(torch.rand(8, 1, 4, 6))  # sets the scales
    return flow.eval()


def analysed(count: int = 5) -> Analysed:
    draw = torch.Generator().manual_seed(2)
    images = Images(torch.randint(17, (count, 1, 4, 6), generator=draw).to(torch.uint8), 17)
    return Analysed(images, images, EvaluationConfig())


def found(flow: acf.Flow, config: AttentionMapsConfig = CONFIG) -> dict[str, Any]:
    return json.loads(json.dumps(attention(flow, analysed(), config).content, allow_nan=False))


@pytest.mark.parametrize("kind", sorted(ATTENTIONS))
@pytest.mark.parametrize("join", [*sorted(JOINS), "block"])
def test_weights_reproduce_what_attention_does_in_the_flow(kind: str, join: str) -> None:
    flow = made(kind=kind, join=join)
    layers = attentions(flow)
    assert list(layers) == [name for name, block in flow.contractive_blocks().items() if _attends(block)]
    calls: dict[SelfAttention, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: calls.update({layer: (inputs[0], output)}))
        for layer in layers.values()
    ]
    with torch.no_grad():
        flow.transform(torch.rand(3, 1, 4, 6))
        for hook in hooks:
            hook.remove()
        assert set(calls) == set(layers.values())
        for layer, (x, y) in calls.items():
            weights, values = layer.weights_and_values_of(x)
            assert torch.allclose(to_maps(layer.output(merge_heads(weights @ values)), x.shape), y, atol=1e-6)


def _attends(block: torch.nn.Module) -> bool:
    return any(isinstance(part, SelfAttention) for part in block.modules())


@pytest.mark.parametrize(
    ("kind", "distance", "entropy"),
    [(Own, 0.0, 0.0), (Even, None, math.log(24)), (Next, (5 * 1 + 5) / 6, 0.0)],
)
def test_distance_and_entropy_of_known_weights(
    kind: type, distance: float | None, entropy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTENTIONS, "fixed", f"{__name__}:{kind.__name__}")
    content = found(made(kind="fixed", join="convex"))
    places = [(y, x) for y in range(4) for x in range(6)]
    even = sum(math.dist(one, other) for one in places for other in places) / 24**2
    assert (content["images"], len(content["blocks"]), content["not_available"]) == (5, 2, [])
    for block in content["blocks"]:
        assert (block["height"], block["width"]) == (4, 6)
        assert block["even_distance"] == pytest.approx(even)
        assert block["even_entropy"] == pytest.approx(math.log(24))
        for head in block["heads"]:
            assert head["distance"] == pytest.approx(even if distance is None else distance, abs=1e-6)
            assert head["entropy"] == pytest.approx(entropy, abs=1e-5)
            assert head["distance_se"] == pytest.approx(0, abs=1e-6)
        assert block["queries"] == [[2, 3], [0, 5]]
        maps = torch.tensor(block["maps"])
        assert maps.shape == (2, 2, 2, 4, 6)
        assert torch.allclose(maps[:, :, 0].flatten(-2), kind.weights[2 * 6 + 3], rtol=1e-3)
        assert torch.allclose(maps[:, :, 1].flatten(-2), kind.weights[5], rtol=1e-3)


def test_means_and_errors_are_over_images() -> None:
    flow = made(kind="l2")
    first = next(iter(attentions(flow).values()))
    inputs: list[Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    block = found(flow)["blocks"][0]
    hook.remove()
    weights = first.weights_and_values_of(torch.cat(inputs))[0].detach().double()
    entropy = -(weights * weights.log()).sum(-1).mean(-1)
    for number, head in enumerate(block["heads"]):
        assert head["entropy"] == pytest.approx(float(entropy[:, number].mean()), rel=1e-5)
        assert head["entropy_se"] == pytest.approx(float(entropy[:, number].std()) / math.sqrt(5), rel=1e-3)


def test_few_weights_are_in_memory_at_a_time_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = made(kind="sinkhorn")
    whole = found(flow)
    for largest in (24**2, 3 * 24**2, 100):
        monkeypatch.setattr(module, "LARGEST_CHUNK", largest)
        layer = next(iter(attentions(flow).values()))
        sizes = [p.numel() for *_, p in chunks(layer, torch.randn(5, layer.channels, 4, 6))]
        assert max(sizes) <= max(largest, 24**2)
        assert sum(sizes) == 5 * 2 * 24**2
        for block, expected in zip(found(flow)["blocks"], whole["blocks"], strict=True):
            assert block["heads"] == [pytest.approx(head, rel=1e-4) for head in expected["heads"]]
            assert torch.allclose(torch.tensor(block["maps"]), torch.tensor(expected["maps"]), rtol=1e-3)


def test_large_maps_are_summed_over_squares() -> None:
    maps = torch.rand(2, 1, 3, 40, 17).softmax(-1)
    summed = module._summed(maps, 16)
    assert summed.shape == (2, 1, 3, 14, 6)
    assert torch.allclose(summed.sum((-2, -1)), maps.sum((-2, -1)))
    assert summed[1, 0, 2, 1, 2] == pytest.approx(float(maps[1, 0, 2, 3:6, 6:9].sum()))


def test_a_flow_without_attention_has_no_blocks() -> None:
    assert found(made(kind="none")) == {"images": 5, "pictures": [], "blocks": [], "not_available": []}


def test_attention_that_does_not_say_its_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTIONS, "silent", f"{__name__}:{Silent.__name__}")
    content = found(made(kind="silent", join="block"))
    assert content["blocks"] == []
    assert content["not_available"] == ["scale 1, block 2", "scale 1, block 4"]


def test_maps_are_shown_of_blocks_spread_over_the_flow() -> None:
    torch.manual_seed(0)
    flow = acf.build({**TINY, "blocks": [5], "attention": {"heads": 1, "kind": "dot", "join": "convex"}}).eval()
    content = found(flow, AttentionMapsConfig(images=2, shown_images=1, shown_blocks=3))
    assert [bool(block["maps"]) for block in content["blocks"]] == [True, False, True, False, True]
