"""Several processes that train one flow: the gradients, weights and rows of one process, and the same on every rank."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import acf
from acf.errors import InputError, StoppedError, TrainingError
from acf.flows.logdet import RouletteEstimator
from acf.flows.noise import RankNoise
from acf.registry import ATTENTIONS
from acf.runs.ranks import BatchShare, Ranks
from acf.training.trainer import Trainer
from tests.building_blocks.ranks import in_every_rank, joined, needs_gloo
from tests.training.trainers import same, trainer

pytestmark = needs_gloo
BATCH = 5  # which two ranks cannot halve
KINDS = ["none", *ATTENTIONS]
TWICE = {"steps": 4, "accumulate": 2, "batch_size": BATCH, "validate_every": 2}


def flow_of(kind: str) -> acf.Flow:
    torch.manual_seed(0)
    attention = {"kind": kind, "heads": 2}
    config = {"shape": (1, 4, 4), "blocks": [2, 2], "idim": 4, "fc_width": 4, "fc_blocks": 1, "attention": attention}
    return acf.build(config).double().train()


def gradients(kind: str, ranks: Ranks) -> list[Tensor]:
    """Gradients of the mean over a batch, after a first batch that sets scales; the noise is drawn from one state."""
    flow = flow_of(kind)
    torch.manual_seed(1)
    for _ in range(2):
        flow.zero_grad()
        share = ranks.share(BATCH)
        x = share.rows(torch.rand(BATCH, 1, 4, 4, dtype=torch.float64))
        (-flow.log_prob_unchecked(x, share=share).sum() / BATCH).backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in flow.parameters()]
    ranks.add_up(found)
    return found


def of_two(rank: int) -> dict[str, list[Tensor]]:
    ranks = joined()
    return {kind: gradients(kind, ranks) for kind in KINDS}


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    first, second = in_every_rank(of_two, tmp_path)
    for kind in KINDS:
        expected = gradients(kind, Ranks())
        assert any(g.abs().max() > 1e-3 for g in expected)
        for a, b, c in zip(first[kind], second[kind], expected, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)


def run(folder: Path, ranks: Ranks, stop: int | None = None, **training: Any) -> dict[str, Any]:
    """Train a small flow; rank 1 alone is sent a signal in step `stop`. Returns the state that is left."""
    one = trainer(folder, {"attention": {"kind": "sinkhorn", "heads": 2}}, ranks, **TWICE | training)
    original = one._gradient_step

    def stopped(rate: float) -> None:
        if one.step == stop and ranks.rank == ranks.number - 1:
            signal.raise_signal(signal.SIGTERM)
        original(rate)

    one._gradient_step = stopped  # type: ignore[method-assign]
    if stop is None:
        one.run()
    else:
        with pytest.raises(StoppedError, match=f"SIGTERM after step {stop + 1}"):
            one.run()
    return state(one)


def state(one: Trainer) -> dict[str, Any]:
    rows = [{**row, "seconds": None} for row in one.history.rows]
    return {"step": one.step, "flow": one.flow.state_dict(), "average": one.average.state_dict(), "rows": rows}


def train_in(rank: int, folder: Path) -> dict[str, Any]:
    ranks = joined()
    return {
        "whole": run(folder / "whole", ranks),
        "stopped": run(folder / "cut", ranks, stop=1),
        "resumed": run(folder / "cut", ranks),
        "before one goes on": run(folder / "handed over", ranks, stop=2),
        "hybrid": run(folder / "hybrid", ranks, task={"kind": "hybrid"}),
    }


class TrainIn:
    """`train_in` a folder, as a function of the rank that can be pickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, rank: int) -> dict[str, Any]:
        return train_in(rank, self.folder)


def near(a: dict[str, Any], b: dict[str, Any]) -> bool:
    for name in ("flow", "average"):
        for key, value in a[name].items():
            torch.testing.assert_close(value.double(), b[name][key].double(), rtol=1e-3, atol=1e-4)
    for mine, other in zip(a["rows"], b["rows"], strict=True):
        for key, value in mine.items():
            assert value == other[key] or value == pytest.approx(other[key], rel=1e-4), key
    return True


def test_training_in_two_processes(tmp_path: Path) -> None:
    """It is that of one up to rounding; a signal to one rank stops both; it resumes to the bit, or on one process."""
    first, second = in_every_rank(TrainIn(tmp_path / "runs"), tmp_path)
    alone = run(tmp_path / "alone", Ranks())
    for name in first:
        assert same(first[name]["flow"], second[name]["flow"]), name
        assert same(first[name]["average"], second[name]["average"]), name
        assert first[name]["rows"] == second[name]["rows"]
    assert first["stopped"]["step"] == 2
    assert same(first["whole"]["flow"], first["resumed"]["flow"])
    assert first["whole"]["rows"] == first["resumed"]["rows"]
    assert near(alone, first["whole"])
    assert near(run(tmp_path / "alone hybrid", Ranks(), task={"kind": "hybrid"}), first["hybrid"])
    handed_over = run(tmp_path / "runs/handed over", Ranks())
    assert handed_over["step"] == 4
    assert near(alone, handed_over)


def disturbed(rank: int) -> str:
    one = trainer(Path(f"/nonexistent/{rank}"), None, joined(), steps=4, validate_every=2)
    original = one._gradient_step

    def changed(rate: float) -> None:
        original(rate)
        if one.step == 0 and rank == 1:
            with torch.no_grad():
                next(one.flow.parameters()).view(-1)[0] += 1e-6

    one._gradient_step = changed  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        one.run()
    return str(caught.value)


def test_ranks_that_have_come_apart_are_noticed(tmp_path: Path) -> None:
    messages = in_every_rank(disturbed, tmp_path)
    assert messages[0] == messages[1]
    assert "differs between the processes" in messages[0]


def wrapped(rank: int) -> dict[str, Any]:
    """What users of DistributedDataParallel get, who seed all processes alike."""
    flow = flow_of("sinkhorn")
    model, plain = acf.DataParallelFlow(flow), DistributedDataParallel(flow_of("none"))
    torch.manual_seed(7)
    x = torch.rand(6, 1, 4, 4, dtype=torch.float64)[3 * rank : 3 * rank + 3]
    (-model.log_prob(x).mean()).backward()
    model.renormalise()
    found: dict[str, Any] = {"gradients": [p.grad for p in flow.parameters()], "flow": flow.state_dict()}
    z, log_abs_det = plain(x)
    (-(flow.base_log_prob(z) + log_abs_det).mean()).backward()
    found["gradients of plain"] = [p.grad for p in plain.module.parameters()]
    for call in (flow.log_prob, flow.log_prob_unchecked, flow.transform, plain.module):
        with pytest.raises(InputError, match=r"model = acf\.DataParallelFlow\(flow\)"):
            call(x)
        with torch.no_grad():
            call(x)
    noise = RankNoise.agreed(torch.device("cpu"))
    estimator = RouletteEstimator(2, "poisson", 2.0, "rademacher")
    found["lengths"] = [noise.lengths(estimator, 4) for _ in range(5)]
    found["probes"] = noise.probes(estimator, (3, 4, 2, 2), x)
    return found


def test_wrapping_a_flow_without_the_trainer(tmp_path: Path) -> None:
    first, second = in_every_rank(wrapped, tmp_path)
    assert same(first["flow"], second["flow"])
    for name in ("gradients", "gradients of plain"):
        assert all(torch.equal(a, b) for a, b in zip(first[name], second[name], strict=True))
    assert first["lengths"] == second["lengths"]
    agreeing = (first["probes"] == second["probes"]).double().mean()
    assert 0.25 < agreeing < 0.75  # 144 signs, half of which agree on average


def test_shares_cover_a_batch() -> None:
    for number in (1, 2, 3, 7):
        for total in (0, 1, 5, 64):
            shares = [Ranks(rank, number).share(total) for rank in range(number)]
            assert [s for share in shares for s in range(share.start, share.stop)] == list(range(total))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert BatchShare(1, 3, 4).rows(torch.arange(4)).tolist() == [1, 2]


def test_replicas_within_a_process_are_refused() -> None:
    """nn.DataParallel asks every module within the model for replicas, before it looks at any input."""
    model = torch.nn.Sequential(flow_of("none"))
    with pytest.raises(InputError, match=r"acf\.DataParallelFlow\(flow\)"):
        [module._replicate_for_data_parallel() for module in model.modules()]
