"""Training on points that are drawn without end: it finds a Gaussian, says how far it is, and stops at NaN."""

import math

import pytest
import torch
from torch import Tensor

import acf
from acf.errors import TrainingError
from acf.flows.flow import Flow
from acf.settings.config import TrainingConfig
from acf.training.density_fit import fit_density

CONFIG = TrainingConfig(steps=60, batch_size=128, learning_rate=0.05, warmup_steps=5, ema_decay=0.9)
SPREAD = 3.0


def flow() -> Flow:
    torch.manual_seed(0)
    exact = {"estimator": "exact"}
    return acf.build({"shape": (2,), "blocks": [1], "idim": 4, "fc_blocks": 0, "training_log_det": exact})


def test_a_gaussian_is_found_and_progress_is_in_nats() -> None:
    points = torch.Generator().manual_seed(0)
    rows: list[tuple[int, float, float]] = []

    def draw(count: int) -> tuple[Tensor, None]:
        return 1 + SPREAD * torch.randn(count, 2, generator=points), None

    found, certificate = fit_density(flow(), draw, CONFIG, lambda *row: rows.append(row))
    assert [step for step, _, _ in rows] == [6 * i for i in range(1, 11)]
    entropy = math.log(2 * math.pi * math.e * SPREAD**2)
    assert rows[-1][1] == pytest.approx(entropy, abs=0.2)
    assert not found.training
    assert certificate.worst < 1
    x = draw(5000)[0]
    with torch.no_grad():
        assert float(found.log_prob(x).mean()) == pytest.approx(-entropy, abs=0.1)


def test_a_loss_that_is_no_number_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Flow.log_prob_unchecked
    monkeypatch.setattr(Flow, "log_prob_unchecked", lambda *given: whole(*given) * math.nan)
    with pytest.raises(TrainingError, match="the loss is nan by step 6; lower the learning rates"):
        fit_density(flow(), lambda count: (torch.randn(count, 2), None), CONFIG, lambda *_: None)
