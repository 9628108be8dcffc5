"""The training loop: its average, validation and accumulation, and stopping with the reason."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acf.errors import NotContractiveError, TrainingError
from acf.lipschitz import L2SelfAttention
from acf.registry import ATTENTIONS
from acf.runs.ranks import BatchShare
from acf.training.batches import training_input
from acf.training.checkpoint import read_checkpoint
from acf.training.finite import not_finite
from tests.training.trainers import SMALL, trainer


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    often, never = (trainer(tmp_path / str(n), SMALL, validate_every=n) for n in (1, 8))
    a, b = often.run()[0].state_dict(), never.run()[0].state_dict()
    close = [
        torch.equal(a[key], b[key]) for key in a if "left" not in key and "right" not in key and "slack" not in key
    ]
    assert all(close)


def test_validation_takes_place_when_asked_whatever_the_rows(tmp_path: Path) -> None:
    run = trainer(tmp_path, SMALL, steps=22, validate_every=21)
    run.run()
    assert [row["step"] for row in run.history.rows] == [*range(2, 21, 2), 21, 22]
    assert [row["step"] for row in run.history.rows if row["validation_bits_per_dim"]] == [21, 22]


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    """Without noise in the log-determinant (dense Jacobian would be exact) the gradients agree in the mean."""
    accumulated = trainer(tmp_path / "a", batch_size=4, accumulate=3, steps=1)
    whole = trainer(tmp_path / "b", batch_size=12, accumulate=1, steps=1)
    for t in (accumulated, whole):
        t.run()
    assert accumulated.history.rows[-1]["images"] == whole.history.rows[-1]["images"] == 12
    assert torch.equal(accumulated.batches.batch_at(0, 12), whole.batches.batch_at(0, 12))


def test_the_average_is_exponential(tmp_path: Path) -> None:
    run = trainer(tmp_path, SMALL, ema_decay=0.5, steps=4)
    seen = []
    original = run.average.update_parameters

    def update(flow: nn.Module) -> None:
        seen.append([p.detach().clone() for p in flow.parameters()])
        original(flow)

    run.average.update_parameters = update  # type: ignore[method-assign]
    run.run()
    expected = seen[0]
    for step in seen[1:]:
        expected = [0.5 * e + 0.5 * p for e, p in zip(expected, step, strict=True)]
    for e, p in zip(expected, run.average.parameters(), strict=True):
        torch.testing.assert_close(p, e)


def test_flips_are_drawn_per_image() -> None:
    images = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    images[..., 0] = 16
    x = training_input(images, levels=17, horizontal_flips=True, share=BatchShare(0, len(images), len(images)))
    flipped = x[:, 0, 0, 7] > 0.5
    assert torch.equal(flipped, x[:, 0, 0, 0] < 0.5)
    assert 140 < int(flipped.sum()) < 260


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_the_layer_is_found_whichever_of_the_accumulated_batches_is_to_blame() -> None:
    module = nn.Sequential(nn.Identity(), nn.Identity(), Logarithm(), nn.Identity())
    good = torch.ones(2, 1)
    for batches in ([-good, good, good], [good, -good, good], [good, good, -good]):
        assert str(not_finite(module, 3, batches)) == "step 3: the output of 2 is not finite"


def test_values_that_are_not_finite_stop_training_and_name_the_layer(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    name, layer = next((n, m) for n, m in run.flow.named_modules() if n.endswith("bijections.2.branch.2"))
    original = run._gradient_step

    def break_later(rate: float) -> None:
        if run.step == 6:
            with torch.no_grad():
                layer.bias.fill_(float("nan"))
        original(rate)

    run._gradient_step = break_later  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        run.run()
    message = str(caught.value)
    assert "step 6" in message
    assert name in message
    assert "last good checkpoint (step 4)" in message
    kept = read_checkpoint(tmp_path)
    assert kept is not None
    assert kept["step"] == 4
    assert all(torch.isfinite(t).all() for t in kept["flow"].values())


class PublishedForm(L2SelfAttention):
    """x + gamma A(x), as the published code has it, with its honest bound."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 2 * super().forward(x)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1 + 2 * super().lipschitz_bound(n_tokens)


def test_a_block_that_is_not_contractive_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTIONS, "published", f"{__name__}:PublishedForm")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[PublishedForm.__module__])
    run = trainer(tmp_path, model={"attention": {"kind": "published", "heads": 2, "share": 0.9, "join": "convex"}})
    with pytest.raises(NotContractiveError) as caught:
        run.run()
    assert "scale 1, block 1" in str(caught.value)
    assert "ConvexShare" in str(caught.value)
