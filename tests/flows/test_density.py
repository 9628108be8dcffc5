"""The density of a flow on two values integrates to one: `Flow.log_prob` under numerical quadrature."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.flows.logdet import RouletteEstimator, WeightedProbe
from acf.flows.prepared import Prepared
from acf.flows.residual import ResidualBlock
from tests.building_blocks.bijections import make_moved_flow
from tests.building_blocks.blocks import BLOCK_KINDS

# As in BLOCK_KINDS, but whole flows: two blocks of that kind and one fully connected block each.
FLOWS: dict[str, dict[str, Any]] = {name: kind for name, kind in BLOCK_KINDS.items() if name != "fc"}
TERMS = 40


def log_prob(flow: acf.Flow, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Mean of `Flow.log_prob` over all sign probes of two values, (1, 1) and (1, -1) up to sign, of all TERMS terms.

    That mean is the log-density itself up to the last terms: log_prob is linear in the estimates of the blocks.
    """
    results = []
    for second in (1.0, -1.0):
        probe = torch.tensor([1.0, second], dtype=x.dtype).view(1, *flow.shape).expand_as(x)
        weighted_probe = WeightedProbe(probe, torch.ones(TERMS, 1, dtype=x.dtype))
        monkeypatch.setattr(
            RouletteEstimator, "weighted_probe", lambda self, x, per_sample, fixed=weighted_probe: fixed
        )
        with torch.no_grad():
            results.append(flow.log_prob(x))
    monkeypatch.undo()
    return torch.stack(results).mean(0)


def integral(flow: acf.Flow, monkeypatch: pytest.MonkeyPatch, reach: float = 16.0, count: int = 97) -> float:
    """Trapezoidal rule over u = logit(s), x = (s - a) / (1 - 2a), which converges fast for a smooth density."""
    u = torch.linspace(-reach, reach, count, dtype=torch.float64)
    s, span = u.sigmoid(), 1 - 2 * flow.config.logit_alpha
    x, slope = (s - flow.config.logit_alpha) / span, s * (-u).sigmoid() / span
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(-1, *flow.shape)
    density = log_prob(flow, grid, monkeypatch).exp().view(count, count)
    edge = max(float((density[i] * slope).max() * slope[i]) for i in (0, -1))
    assert edge < 1e-6  # nothing beyond the grid
    return float((density * slope * slope[:, None]).sum() * (2 * reach / (count - 1)) ** 2)


@pytest.mark.parametrize("kind", FLOWS)
def test_density_of_two_positions_integrates_to_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(1, 1, 2): two tokens, so that attention attends."""
    assert integral(make_moved_flow((1, 1, 2), **FLOWS[kind]), monkeypatch) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("settings", [{}, {"actnorm": False}, {"activation": "elu"}, {"logit_alpha": 1e-3}], ids=str)
def test_density_of_two_channels_integrates_to_one(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # The density has kinks where ELU's slope has them, which take a finer grid.
    count = 193 if settings.get("activation") == "elu" else 97
    assert integral(make_moved_flow((2, 1, 1), **settings), monkeypatch, 24.0, count) == pytest.approx(1, abs=1e-3)


def test_the_log_prob_integrated_is_that_of_the_whole_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the dense Jacobian of x -> z, which knows nothing of blocks or series."""
    flow = make_moved_flow((1, 1, 2), **FLOWS["l2"])
    x = torch.rand(3, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = []
    for point in x.split(1):
        j = torch.autograd.functional.jacobian(lambda t: flow.transform(t).flatten(), point).view(2, 2)
        z = flow.transform(point).detach()
        expected.append(-0.5 * z.square().sum() - math.log(2 * math.pi) + torch.linalg.slogdet(j).logabsdet)
    assert torch.allclose(log_prob(flow, x, monkeypatch), torch.stack(expected), atol=1e-6)


def test_a_forgotten_block_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the log-determinant of one block is lost."""
    flow = make_moved_flow((1, 1, 2))
    right, lost = ResidualBlock.forward, next(iter(flow.contractive_blocks().values()))

    def forward(self: ResidualBlock, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        y, value = right(self, x, prepared)
        return y, value * (self is not lost)

    with monkeypatch.context() as planted:
        planted.setattr(ResidualBlock, "forward", forward)
        with pytest.MonkeyPatch.context() as inner:
            assert abs(integral(flow, inner) - 1) > 0.01
