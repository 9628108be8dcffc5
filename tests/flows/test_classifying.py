"""Classification heads: what they compute, and that nothing else of a flow depends on them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, linear

import acf
from acf.errors import ConfigError
from acf.flows.classifying import ClassifyingFlow

CLASSES = 3
MODELS: dict[str, dict[str, Any]] = {
    "two scales": {"shape": (1, 4, 4), "blocks": [1, 1]},
    "factor-out and attention": {
        **{"shape": (2, 4, 4), "blocks": [1, 1], "factor_out": True},
        "attention": {"kind": "l2", "heads": 2},
    },
    "vectors": {"shape": (3,), "blocks": [2]},
    "conditional": {"shape": (3,), "blocks": [2], "condition": {"classes": 2}},
}
SIZES = {"idim": 4, "fc_blocks": 1, "fc_width": 4, "head_width": 5}


def built(name: str, classes: int | None = CLASSES) -> acf.Flow:
    """A flow in float64 whose first batch has set its scales."""
    torch.manual_seed(0)
    flow = acf.build({**MODELS[name], **SIZES, "classes": classes}).double().train()
    x, condition = inputs(flow)
    flow(x, condition)
    if isinstance(flow, ClassifyingFlow):
        flow.classify(x, condition)
    return flow


def inputs(flow: acf.Flow, batch: int = 5) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, *flow.shape, dtype=torch.float64, generator=generator)
    return x, torch.arange(batch) % 2 if flow.config.condition.is_given else None


def reference(flow: ClassifyingFlow, x: Tensor, condition: Tensor | None) -> Tensor:
    """Logits from the scales' maps, by torch's functions and automatic differentiation."""
    x, features = flow.preprocessing.transform(x), flow._features(condition)
    pooled = []
    for index, scale in enumerate(flow.bijection.scales):
        x = scale.transform(x, features)
        convolution, norm = flow.heads.convolutions[index], flow.heads.norms[index]
        y = conv2d(x, convolution.weight, convolution.bias, padding=convolution.weight.shape[-1] // 2)
        pooled.append(((y + norm.shift) * norm.log_scale.exp()).clamp_min(0).mean((2, 3)))
        if flow.config.factor_out and index == 0:
            x = x.chunk(2, dim=1)[0]
    return linear(torch.cat(pooled, 1), flow.heads.last.weight, flow.heads.last.bias)


every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_logits_are_those_of_the_features_of_every_scale(name: str) -> None:
    flow = built(name).eval()
    x, condition = inputs(flow)
    logits = flow.classify(x, condition)
    assert logits.shape == (5, CLASSES)
    torch.testing.assert_close(logits, reference(flow, x, condition), rtol=1e-12, atol=1e-12)
    alone = torch.cat(
        [flow.classify(x[i : i + 1], None if condition is None else condition[i : i + 1]) for i in range(5)]
    )
    torch.testing.assert_close(logits, alone, rtol=1e-12, atol=1e-12)
    torch.manual_seed(3)
    log_prob, beside = flow.log_prob_and_logits(x, condition)
    torch.testing.assert_close(beside, logits, rtol=1e-12, atol=1e-12)
    torch.manual_seed(3)
    assert torch.equal(log_prob, flow.log_prob(x, condition))


@every_model
def test_heads_change_neither_density_nor_inverse_nor_certificate(name: str) -> None:
    plain, flow = built(name, None), built(name)
    own = flow.state_dict()
    assert {key for key in own if not key.startswith("heads.")} == plain.state_dict().keys()
    assert all(torch.equal(value, own[key]) for key, value in plain.state_dict().items())
    x, condition = inputs(flow)
    found = []
    for one in (plain, flow):
        for train in (True, False):
            torch.manual_seed(2)
            found.append(one.train(train).log_prob(x, condition))
        found.append(one.inverse(one.transform(x, condition), condition=condition))
        found.append(torch.tensor([bound.upper for bound in acf.certify(one).blocks]))
    assert all(torch.equal(a, b) for a, b in zip(found[:4], found[4:], strict=True))


@every_model
def test_the_gradient_of_both_from_one_pass_is_the_sum_of_each(name: str) -> None:
    """The loss of a hybrid task with weight 0.7, and the fast path's gradients against automatic differentiation."""
    flow = built(name)
    x, condition = inputs(flow)
    labels = torch.arange(5) % CLASSES

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(flow.parameters()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(flow.parameters(), found, strict=True)]

    torch.manual_seed(4)
    log_prob, logits = flow.log_prob_and_logits(x, condition)
    together = gradients(-0.7 * log_prob.sum() + cross_entropy(logits, labels))
    torch.manual_seed(4)
    density = gradients(-0.7 * flow.log_prob(x, condition).sum())
    of_labels = gradients(cross_entropy(reference(flow, x, condition), labels))
    assert max(float(g.abs().max()) for g in of_labels) > 1e-3
    for both, one, other in zip(together, density, of_labels, strict=True):
        torch.testing.assert_close(both, one + other, rtol=1e-9, atol=1e-11)
    alone = gradients(cross_entropy(flow.classify(x, condition), labels))
    for found, expected in zip(alone, of_labels, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_flow_with_heads_is_stored_with_them(tmp_path: Path) -> None:
    flow = built("two scales").eval()
    acf.save(flow, tmp_path)
    again = acf.load(tmp_path)
    x, _ = inputs(flow)
    assert isinstance(again, ClassifyingFlow)
    assert torch.equal(again.classify(x), flow.classify(x))


def test_a_wrapper_that_trains_no_heads_is_refused() -> None:
    flow = acf.build({"shape": (2,), "blocks": [1], "idim": 4, "classes": 3})
    with pytest.raises(ValueError, match="has classification heads"):
        acf.DataParallelFlow(flow)


def test_what_cannot_be_classified_is_refused() -> None:
    with pytest.raises(ConfigError, match="classes"):
        acf.build({**MODELS["two scales"], **SIZES, "classes": 1})
    assert not hasattr(built("two scales", None), "classify")
    with pytest.raises(acf.errors.InputError, match="values in"):
        built("two scales").classify(torch.full((1, 1, 4, 4), 2.0, dtype=torch.float64))
